"""The models hold no word about any device: what a CPU does faster lives in wan_core/cpu."""

import re
from pathlib import Path

import pytest

import wan_core

ROOT = Path(wan_core.__file__).parent
FILES = [ROOT / "ops.py", *sorted((ROOT / "dit").rglob("*.py")), *sorted((ROOT / "vae").rglob("*.py"))]
DEVICES = re.compile(
    r"cpu|cuda|gpu|mps|xpu|nvidia|intel|amd|avx|amx|\bmkl|mkldnn|onednn|cudnn|winograd|is_compiling|is_autocast", re.I
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_about_a_device(path):
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    assert not [f"{path.name}:{n}: {line.strip()}" for n, line in lines if DEVICES.search(line)]


def test_such_words_are_found():
    assert all(DEVICES.search(line) for line in ("if x.is_cpu:", "import oneDNN", "x.cuda()", "torch.backends.mkldnn"))
