"""What the registry, the manager and ComfyUI itself read."""

import ast
import re
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib")
ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_registry_metadata_is_complete():
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,99}", project["name"]) and "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"]) and project["urls"]["Repository"].startswith("https://")
    assert {"description", "license", "requires-python", "classifiers"} <= set(project)
    assert any(c.startswith("Operating System") for c in project["classifiers"])
    assert {"PublisherId", "DisplayName", "requires-comfyui"} <= set(comfy)


def test_requirements_are_those_of_the_library_without_what_comfyui_owns():
    dependencies = PROJECT["project"]["dependencies"]
    assert "torch" in dependencies and any(d.startswith("comfyui-frontend-package>=") for d in dependencies)
    owned = ("torch", "comfyui-frontend-package")
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert sorted(lines) == sorted(d for d in dependencies if not d.startswith(owned))
    assert not [line for line in lines if re.search("[<>=]", line)]


def test_nothing_is_installed_or_mapped_behind_comfyuis_back():
    assert not (ROOT / "install.py").exists() and not (ROOT / "prestartup_script.py").exists()
    tree = ast.parse((ROOT / "__init__.py").read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert "comfy_entrypoint" in names and "NODE_CLASS_MAPPINGS" not in names
