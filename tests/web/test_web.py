"""The JavaScript, by node's own test runner."""

import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from wan_core.checkpoints.identify import expert_from_name
from wan_core.config import PRESETS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def node():
    found = shutil.which("node")
    if found is None:
        message = "NO NODE FOUND: the arithmetic of the plot is not tested. Install Node.js 20 or newer."
        warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return found


def test_what_needs_no_page(node):
    run = subprocess.run(
        [node, "--test", *map(str, Path(__file__).parent.glob("*.test.mjs"))], capture_output=True, text=True
    )
    assert run.returncode == 0 and re.search(r"(pass|# pass) [1-9]", run.stdout), run.stdout[-4000:] + run.stderr


def test_the_page_knows_the_presets_with_two_experts():
    pairs = re.search(r"const PAIRS = new Set\((\[[^]]*\])\)", (ROOT / "web" / "runInputs.js").read_text("utf-8"))
    assert json.loads(pairs[1]) == [preset.name for preset in PRESETS.values() if preset.two_experts]


def test_the_page_and_the_library_read_names_alike(node):
    """The LoRA node sets strengths by the name of a file; the server warns by it."""
    words = (
        "high",
        "low",
        "High",
        "LOW",
        "highnoise",
        "low_noise",
        "low noise",
        "HighNoise",
        "flow",
        "highlands",
        "below",
        "style",
        "v1.1",
        "é",
    )
    names = [f"{a}{gap}{b}.safetensors" for a in words for gap in ("_", "-", "", " ", "/", "1") for b in words]
    script = f"""import {{ expertOf }} from "{ROOT}/web/expertNames.js";
        console.log(JSON.stringify({json.dumps(names)}.map(expertOf)));"""
    run = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    assert (
        json.loads(run.stdout) == [expert_from_name(Path(name).name, {}) for name in names]
        and len(set(json.loads(run.stdout))) == 3
    )


@pytest.mark.parametrize("script", sorted((ROOT / "web").glob("*.js")), ids=lambda path: path.name)
def test_no_markup_is_made_from_text(script):
    code = script.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", code)
