"""Habits of the code that no linter holds."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "wan_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
CONSTRUCTORS = ("__init__", "__new__")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def methods(owner: ast.ClassDef) -> list[ast.FunctionDef]:
    return [node for node in owner.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def attributes_set(method: ast.FunctionDef) -> dict[str, int]:
    """Attribute → line of every `self.x = …`, `self.x += …`, `self.x: T = …` and `for self.x in …` in a method."""
    arguments = method.args.posonlyargs + method.args.args
    this = arguments[0].arg if arguments else None
    return {
        node.attr: node.lineno
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == this
    }


def declared(owner: ast.ClassDef, known: dict[str, ast.ClassDef]) -> set[str]:
    """What a class and its bases in the same file declare: in the class body, in the constructor, or as a buffer."""
    names = set()
    for node in owner.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    for method in methods(owner):
        if method.name in CONSTRUCTORS:
            names |= attributes_set(method).keys()
            for call in ast.walk(method):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "").startswith("register_"):
                    names |= {word.value for word in call.args if isinstance(word, ast.Constant)}
    for base in owner.bases:
        if isinstance(base, ast.Name) and base.id in known:
            names |= declared(known[base.id], known)
    return names


def born_late(source: str) -> list[str]:
    """Class.attribute of everything that is first set outside a constructor."""
    tree = ast.parse(source)
    known = {owner.name: owner for owner in classes(tree)}
    return [
        f"{owner.name}.{attribute}, line {line}"
        for owner in known.values()
        for method in methods(owner)
        for attribute, line in attributes_set(method).items()
        if attribute not in declared(owner, known)
    ]


def setters(source: str) -> list[str]:
    """Names of property setters and deleters."""
    return [
        method.name
        for owner in classes(ast.parse(source))
        for method in methods(owner)
        for decorator in method.decorator_list
        if isinstance(decorator, ast.Attribute) and decorator.attr in ("setter", "deleter")
    ]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_attribute_is_born_outside_its_constructor(path):
    assert born_late(path.read_text("utf-8")) == []


def test_nothing_happens_when_an_attribute_is_assigned():
    assert {name_of(path) for path in FILES if setters(path.read_text("utf-8"))} == set()


def test_the_rules_see_what_they_forbid():
    guider = "class A:\n    def __init__(self):\n        self.a = self.b = 0\n    def run(self):\n        {}"
    for statement in (
        "self.c = 1",
        "self.a, self.c = 1, 2",
        "self.c: int = 1",
        "self.c += 1",
        "with f() as self.c: ...",
    ):
        assert born_late(guider.format(statement)) == ["A.c, line 5"], statement
    assert born_late(guider.format("self.a += 1; self.b = other.c = 2")) == []
    assert born_late("class B:\n    c: int = 0\n    def run(this):\n        this.c = 1\n        this.d = 1") == [
        "B.d, line 5"
    ]
    assert setters("class A:\n    @property\n    def x(self): ...\n    @x.setter\n    def x(self, x): ...") == ["x"]
