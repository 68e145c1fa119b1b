"""No attribute is born outside __init__: what an object holds is read in one place."""

import ast
from pathlib import Path

import pytest

import wan_core

ROOT = Path(wan_core.__file__).parent
FILES = sorted(path for room in ("flow", "pipeline", "memory") for path in (ROOT / room).rglob("*.py"))


def assigned(function: ast.AST) -> set[str]:
    """Attributes of self that a method assigns."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def born_late(source: str) -> set[str]:
    """Attributes that methods assign and neither __init__ nor the class declares."""
    found = set()
    for owner in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)):
        methods = [node for node in owner.body if isinstance(node, ast.FunctionDef)]
        declared = {node.target.id for node in owner.body if isinstance(node, ast.AnnAssign)}
        declared |= set().union(*(assigned(method) for method in methods if method.name == "__init__"))
        found |= set().union(*(assigned(method) for method in methods)) - declared
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_attribute_is_born_outside_init(path):
    assert not born_late(path.read_text(encoding="utf-8"))


def test_an_attribute_born_late_is_found():
    source = """
class Late:
    here: int
    def __init__(self): self.a = 1
    def run(self): self.a = self.b = self.here = 2
"""
    assert born_late(source) == {"b"}
