"""Loading a checkpoint of 1 GB: memory, and speed against reading the file: python -m benchmarks.cpu.load

Each load and each plain read runs in a process of its own, from a cold file, in changing order. Wall time, because a
disk takes no CPU time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks import measure
from wan_core.config import DiTConfig
from wan_core.dit import WanDiT

CONFIG = DiTConfig(dim=1024, ffn_dim=2816, heads=8, layers=36, text_dim=256)  # 1 GB in bfloat16
START = """
import json, os, sys, time

def status(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024
"""
READ = (
    START
    + """
start, buffer = time.perf_counter(), bytearray(1 << 22)
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.readinto(buffer):
        pass
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
)
LOAD = (
    START
    + """
import torch
from wan_core.checkpoints import load_dit
from wan_core.memory import ModelOffloader

torch.nn.Linear(8, 8)(torch.randn(1, 8))  # whatever torch allocates once
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # reset the peak
resident, private, start = status("VmRSS:"), status("RssAnon:"), time.perf_counter()
model, offloader = load_dit(sys.argv[1]), ModelOffloader()
offloader.prefetch(model)  # touches every page
offloader.wait_for_prefetch()
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "peak": status("VmHWM:") - resident,
    "private": status("RssAnon:") - private,
}))
"""
)


def in_a_process(code: str, file: Path) -> dict:
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    environment = os.environ | {"PYTHONPATH": str(measure.PACK)}
    run = subprocess.run([sys.executable, "-c", code, file], stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure loading a checkpoint of 1 GB.")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    args = parser.parse_args()
    report = measure.Report("load")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        with torch.device("meta"):
            names = WanDiT(CONFIG).state_dict()
        save_file({name: torch.randn(t.shape, dtype=torch.bfloat16) for name, t in names.items()}, file)
        os.sync()
        size, loads, ratios = file.stat().st_size, [], []
        for k in range(args.rounds):
            found = {code: in_a_process(code, file) for code in ((READ, LOAD) if k % 2 else (LOAD, READ))}
            loads.append(found[LOAD])
            ratios.append(found[READ]["seconds"] / found[LOAD]["seconds"])
        figures = {"file_in_GB": size / 1e9}
        for what, target in (("peak", 1.05), ("private", 0.05)):
            value = statistics.median(load[what] for load in loads) / size
            report.add(
                f"load, every page touched: {what} memory", "the file", value, target, measure="bytes", **figures
            )
        report.add(
            "load, every page touched: speed",
            "reading the file",
            measure.Ratio.of(ratios),
            0.8,
            at_least=True,
            measure="speed",
        )
    report.write()


if __name__ == "__main__":
    measure.same_settings()
    main()
