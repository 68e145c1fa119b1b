"""The JavaScript, by node's own test runner."""

import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def node():
    found = shutil.which("node")
    if found is None:
        message = "NO NODE FOUND: the arithmetic of the plot is not tested. Install Node.js 20 or newer."
        warnings.warn(message)
        pytest.skip(message)
    return found


def test_arithmetic_of_the_plot(node):
    run = subprocess.run([node, "--test", *map(str, Path(__file__).parent.glob("*.test.mjs"))], capture_output=True, text=True)
    assert run.returncode == 0 and re.search(r"(pass|# pass) [1-9]", run.stdout), run.stdout[-4000:] + run.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "web").glob("*.js")), ids=lambda path: path.name)
def test_no_markup_is_made_from_text(script):
    code = script.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", code)
