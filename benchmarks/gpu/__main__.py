"""One GPU at real sizes, random weights: python -m benchmarks.gpu [ceilings dit vae switch compile] [--seconds 540]

Rows go to results/gpu.md and gpu.json as they are measured; a run that is cut off keeps what it has, and a row that is
measured again replaces the old one. What does not fit into --seconds is left out and named. diffusers takes part where
it is installed; native ComfyUI where its folder is found ($COMFYUI_PATH), in a process of its own beside ours again.
Both get our weights, as the same tensors. Everything is drawn on the GPU, one expert at a time (28 GB in bfloat16); the
switch needs 60 GB of host memory and 30 GB of disk (--folder). Packages: torch, einops, numpy, safetensors,
sentencepiece, tokenizers.

--tiny runs the same code on small sizes and prints its table: the way to try it on a CPU.
"""

import argparse
import json
import subprocess
import sys
import traceback
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.gpu.bench import REAL, Bench, tiny
from benchmarks.gpu.device import Device, attention_ceiling, copy_ceiling, matmul_ceiling
from benchmarks.gpu.models import compiled, dit, vae
from benchmarks.gpu.switch import switch
from benchmarks.rivals import open_comfyui
from scripts.canvas import find_comfyui, python_of


class GpuReport(measure.Report):
    """Rows of seconds, memory and shares, written as they come."""

    COLUMNS = (
        "value",
        "rounds",
        "peak GiB",
        "TFLOP/s",
        "of the matmul ceiling",
        "ours/theirs",
        "error against fp32",
        "difference from ours",
    )

    def __init__(self, name: str, about: str, keep: bool):
        super().__init__(name)
        self.about, self.keep = about, keep
        if not keep:
            self.rows = []

    def add(self, *args, **figures) -> None:
        super().add(*args, **figures)
        if self.keep:
            self.write()

    def write(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(
            json.dumps({"machine": self.about, "rows": self.rows}, ensure_ascii=False, indent=1) + "\n",
            encoding="utf-8",
        )
        self.path.with_suffix(".md").write_text(f"{self.about}\n\n{self.table()}", encoding="utf-8")

    def table(self) -> str:
        """Markdown. Peaks are above the weights and whatever else was there before."""
        lines = [
            "| what | whose | " + " | ".join(("value", *self.COLUMNS[1:])) + " | |",
            "|---" * (len(self.COLUMNS) + 3) + "|",
        ]
        for row in self.rows:
            cells = [f"{row[name]:.3g}" if name in row else "" for name in self.COLUMNS]
            cells[0] += " " + row["measure"]
            known = {*self.COLUMNS, "what", "against", "measure", "torch"}
            rest = ", ".join(f"{name} {value}" for name, value in row.items() if name not in known)
            lines.append(f"| {row['what']} | {row['against']} | {' | '.join(cells)} | {rest} |")
        return "\n".join(lines) + "\n"


def ceilings(bench: Bench) -> None:
    """What the parts are held against."""
    device = bench.device
    if not bench.inside:
        size = 256 if bench.tiny else 8192
        for dtype in (torch.bfloat16, torch.float32):
            rate = matmul_ceiling(device, size, dtype)
            bench.report.add(f"matmul {size}³, {str(dtype)[6:]}", "torch", rate / 1e12, measure="TFLOP/s")
        config = bench.clips[0].preset.dit
        for clip in bench.clips:
            rate = attention_ceiling(device, config.heads, clip.tokens, config.head_dim, torch.bfloat16)
            figures = {"of the matmul ceiling": rate / bench.ceiling}
            bench.report.add(
                f"attention, {clip.tokens:,} tokens, {config.heads} heads",
                "torch",
                rate / 1e12,
                measure="TFLOP/s",
                **figures,
            )
        rate = copy_ceiling(device, (1 << 20) if bench.tiny else (4 << 30))
        bench.report.add("copy from pinned memory", "torch", rate / 1e9, measure="GB/s")


PARTS = {"ceilings": ceilings, "dit": dit, "vae": vae, "switch": switch, "compile": compiled}
RIVALLED = ("dit", "vae")


def run_parts(bench: Bench, names) -> int:
    """Number of parts that failed; one that fails does not take the others along."""
    failed = 0
    for name in names:
        try:
            PARTS[name](bench)
        except Exception:
            traceback.print_exc()
            failed += 1
        bench.close()
    return failed


def beside_comfyui(options: argparse.Namespace, bench: Bench, folder: Path, names: list[str]) -> int:
    """The same parts again in ComfyUI's python, with ComfyUI as the rival."""
    python = python_of(folder) if Path(python_of(folder)).exists() else sys.executable
    command = [
        python,
        "-m",
        "benchmarks.gpu",
        *names,
        "--inside",
        str(folder),
        "--device",
        options.device,
        "--seconds",
        str(int(bench.device.left())),
    ]
    return subprocess.run([*command, "--tiny"] if options.tiny else command).returncode


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description="Measure one GPU at real sizes with random weights.")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=540, help="time there is, all parts together (default: %(default)s)"
    )
    parser.add_argument("--folder", help="where the switch writes an expert; default: the system's temporary folder")
    parser.add_argument("--tiny", action="store_true", help="small sizes, table printed and not kept")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # ComfyUI's folder, when its python runs this
    options = parser.parse_args()
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.inside:
        open_comfyui(options.inside, *(["--cpu"] if options.device == "cpu" else []))
    device = Device(options.device, options.seconds, rounds=2 if options.tiny else 9)
    report = GpuReport("gpu", device.about(), keep=not options.tiny)
    clips = tuple(tiny(clip) for clip in REAL) if options.tiny else REAL
    bench = Bench(device, report, clips, options.folder, options.tiny, bool(options.inside))
    bench.ceiling = matmul_ceiling(device, 256 if options.tiny else 8192, torch.bfloat16)
    folder = None if options.inside else find_comfyui()
    again = [name for name in options.parts if name in RIVALLED] if folder else []
    later = 0.45 * options.seconds if again else 0  # is ComfyUI's
    device.end -= later
    failed = run_parts(bench, options.parts)
    device.end += later
    if options.tiny:
        print(report.table())
    if again:
        failed += beside_comfyui(options, bench, folder, again)
    elif not options.inside:
        print(json.dumps({"ComfyUI": "not found" if folder is None else "not in these parts"}))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
