"""Loading holds no second copy. Measured in a process of its own, by the kernel's account of its memory."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch

from tests.support.sparse import write_sparse
from wan_core.config import DiTConfig
from wan_core.dit import WanDiT

MEASURE = """
    import json, sys, torch

    def status(field):
        line = next(line for line in open("/proc/self/status") if line.startswith(field))
        return int(line.split()[1]) * 1024

    from wan_core.checkpoints import load_dit

    torch.nn.Linear(8, 8)(torch.randn(1, 8))  # whatever torch allocates once
    open("/proc/self/clear_refs", "w").write("5")  # reset the peak
    before = status("VmRSS:")
    model = load_dit(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
    total = sum(float(p.sum()) for p in model.parameters() if p.numel() > 1e6) if sys.argv[3] == "touch" else 0
    print(json.dumps({"peak": status("VmHWM:") - before}))
"""


@pytest.fixture
def file(tmp_path):
    """1 GB."""
    path = write_sparse(tmp_path / "model.safetensors", state(layers=36))
    assert 0.95e9 < path.stat().st_size < 1.05e9
    return path


def state(layers):
    with torch.device("meta"):
        return WanDiT(DiTConfig(dim=1024, ffn_dim=2816, heads=8, layers=layers, text_dim=256)).state_dict()


def measure(file, dtype, touch):
    code = textwrap.dedent(MEASURE)
    run = subprocess.run([sys.executable, "-c", code, file, dtype, touch], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_a_load_maps_the_file(file):
    assert measure(file, "bfloat16", "no")["peak"] < 0.05 * file.stat().st_size


@pytest.mark.slow
def test_a_load_that_reads_everything_peaks_at_the_files_size(file):
    assert measure(file, "bfloat16", "touch")["peak"] <= 1.05 * file.stat().st_size


@pytest.mark.slow
def test_a_cast_keeps_one_copy(file):
    """float16 has the size of bfloat16: the cast weights, and never the file beside them."""
    assert measure(file, "float16", "no")["peak"] <= 1.05 * file.stat().st_size


@pytest.mark.slow
def test_a_cast_pickle_gives_its_pages_back(tmp_path):
    """float32 to bfloat16: half the file, and a window of it."""
    path = tmp_path / "model.pth"
    torch.save({name: torch.zeros(t.shape) for name, t in state(layers=16).items()}, path)
    assert measure(path, "bfloat16", "no")["peak"] <= 1.05 * path.stat().st_size
