"""The layers of wan_core, held by reading its imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wan_core

ROOT = Path(wan_core.__file__).parent
# Layers, lowest first: a package imports what lies in layers below its own, and itself.
LAYERS = (
    {"errors"},
    {"config", "validate"},
    {"shapes", "devices", "ops", "attention", "fused"},
    {
        "text",
        "vision",
        "dit",
        "vae",
        "flow",
        "media",
        "memory",
        "video",
    },  # no imports between these, but `video` names `media`
    {"cpu", "conditioning"},
    {"checkpoints"},
    {"lora", "parallel", "testing"},
    {"pipeline", "training"},
    {"demo"},
    {"fleet"},
    {"commands"},
    {"cli"},
)
BELOW = {package: set().union(*LAYERS[:n]) for n, layer in enumerate(LAYERS) for package in layer}
ALLOWED = BELOW | {
    "attention": BELOW["attention"] | {"ops"},
    "video": {"media"},
    "__main__": {"cli"},
    "__init__": {"pipeline", "media"},
}
OUTSIDE = {
    "einops",
    "ftfy",
    "imageio_ffmpeg",
    "numpy",
    "PIL",
    "safetensors",
    "sentencepiece",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
}
OPTIONAL = {"flash_attn", "flash_attn_interface", "lpips", "sageattention"}  # used where it is installed


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path):
    """(part of wan_core or None, outside package or None) of every import, also those inside functions."""
    package = path.relative_to(ROOT.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield None, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield None, node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            full = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            names = [full[1]] if full[1:] and full[1] else [alias.name for alias in node.names]
            yield from ((name, None) for name in names)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = package_of(path)
    for inside, outside in imports(path):
        if inside is not None:
            assert inside == own or inside in ALLOWED[own], f"{path.name} imports {inside}"
        else:
            assert outside in OUTSIDE | OPTIONAL or outside in sys.stdlib_module_names, f"{path.name} imports {outside}"


def test_every_package_has_its_layer():
    assert {package_of(path) for path in FILES} <= set(ALLOWED)


def test_flow_never_imports_a_model_class():
    for path in (ROOT / "flow").rglob("*.py"):
        assert not {"dit", "vae", "text"} & {inside for inside, _ in imports(path)}


def test_imports_inside_the_library_are_relative():
    assert not [path for path in FILES for _, outside in imports(path) if outside == "wan_core"]


def test_imports_inside_the_pack_are_relative():
    """ComfyUI loads the pack under a name made from its path; `nodes` and `wan_core` by themselves are others'."""
    pack = ROOT.parent
    assert not [path for path in (pack / "nodes").rglob("*.py") if (None, "wan_core") in imports(path)]
    assert not {"nodes", "wan_core"} & {outside for _, outside in imports(pack / "__init__.py")}


def test_dependencies_are_those_of_the_project():
    names = {"PIL": "pillow", "imageio_ffmpeg": "imageio-ffmpeg"}
    listed = (ROOT.parent / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
    listed = {line.strip(' ",') for line in listed.split() if line.strip(' ",')} - {"comfyui-frontend-package>=1.49"}
    assert {names.get(name, name) for name in OUTSIDE} == listed


def test_importing_the_package_loads_no_model_code():
    code = "import sys, wan_core; print([m for m in sys.modules if m == 'torch' or m.startswith('wan_core.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
