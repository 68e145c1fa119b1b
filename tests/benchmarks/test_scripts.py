"""Every benchmark can be started; what they measure is not a test's business."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [path for path in sorted((ROOT / "benchmarks").rglob("*.py")) if "ArgumentParser(" in path.read_text()]
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in SCRIPTS]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_says_what_it_does(module):
    run = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and "usage:" in run.stdout, run.stderr
