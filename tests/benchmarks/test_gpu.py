"""The GPU benchmark on a CPU in small: a GPU is borrowed for minutes, so the script has to work at the first try."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_part_runs_and_agrees_with_its_rivals(tmp_path):
    hidden = {"COMFYUI_PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "BENCHMARK_RESULTS": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--tiny",
        "--device",
        "cpu",
        "--folder",
        tmp_path,
        "--seconds",
        "600",
    ]
    run = subprocess.run(command, env=os.environ | hidden, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    done = {(row["what"], row["against"]): row for row in rows if "what" in row}
    for what in (
        "A14B forward, 64×32, 5 frames",
        "5B forward, 128×32, 5 frames",
        "VAE 2.2 decode, float32, 128×32, 5 frames",
    ):
        assert done[what, "ours"]["value"] > 0
    for what in ("pinned memory", "file on disk", "file on disk, prefetched"):
        assert done[f"expert switch, {what}", "ours"]["GB/s"] > 0
    assert done["A14B forward with torch.compile, 64×32, 5 frames", "ours"]["difference from ours"] < 1e-2
    errors = [row["error against fp32"] for row in done.values() if "error against fp32" in row]
    assert len(errors) >= 8 and max(errors) < 0.05
    assert [path.name for path in tmp_path.iterdir()] == [], "a trial keeps no results"
