"""Measures ratios that hold on a busy machine: CPU time of ours and the rivals, turn by turn in one process.

from benchmarks.measure import Report, paired, same_settings

if __name__ == "__main__":
    same_settings()                          # starts this script again with one thread and a fixed allocator
    report = Report("dit")
    ratios = paired(ours, {"diffusers": theirs})
    report.add("DiT forward, fp32", "diffusers", ratios["diffusers"], target=0.92, error=error(ours(), reference))
    report.write()                           # results/dit.json and results/dit.md
"""

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

PACK = Path(__file__).resolve().parent.parent
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).resolve().parent / "results")
# One thread. One heap that is never given back: a page is fetched from the system once, in whichever turn.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


def same_settings() -> None:
    """Start this script again unless it already runs with SETTINGS."""
    if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | SETTINGS)
    torch.set_num_threads(1)


def machine() -> dict:
    """What the figures were taken on."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory": f"{memory[0] / 2**20:.0f} GiB" if memory else "",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


class Ratio(NamedTuple):
    """Ours over theirs: median of the rounds, and the quartiles around it."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> "Ratio":
        low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(median, low, high, len(values))


def paired(ours: Callable, rivals: Mapping[str, Callable], rounds: int = 15, warm: int = 2) -> dict[str, Ratio]:
    """CPU time of `ours` over that of each rival, from rounds of one turn each, in changing order."""
    turns = {"": ours, **rivals}
    for _ in range(warm):
        for turn in turns.values():
            turn()
    ratios, names = {name: [] for name in rivals}, list(turns)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            seconds = {name: cpu_seconds(turns[name]) for name in names}
            for name in rivals:
                ratios[name].append(seconds[""] / seconds[name])
            names = names[1:] + names[:1]
    finally:
        gc.enable()
    return {name: Ratio.of(values) for name, values in ratios.items()}


def cpu_seconds(work: Callable) -> float:
    """CPU time that this process spends in work(), its threads included."""
    start = time.process_time()
    work()
    return time.process_time() - start


def error(x: Tensor, reference: Tensor) -> float:
    """Distance from the reference over the reference's length, in float64."""
    return float((x.double() - reference.double()).norm() / reference.double().norm())


class Report:
    """Rows of one script: printed as JSON lines, kept in results/NAME.json, shown in results/NAME.md.

    A row that is measured again replaces the earlier one.
    """

    def __init__(self, name: str):
        self.path = RESULTS / f"{name}.json"
        self.rows = json.loads(self.path.read_text())["rows"] if self.path.exists() else []

    def add(
        self,
        what: str,
        against: str,
        value: Ratio | float,
        target: float | None = None,
        at_least: bool = False,
        measure: str = "CPU time",
        **figures,
    ) -> None:
        """One row.

        Args:
            what, against: the work, and whose turn it is compared with; together the row's name.
            value: a ratio of `paired`, or any number.
            target: what it should be at most, or with `at_least` at least.
            measure: what the number is a ratio of.
            figures: numbers that belong to the row, such as error= and their_error= against a float32 reference.
        """
        row = {"what": what, "against": against, "measure": measure}
        if isinstance(value, Ratio):
            row |= {"value": value.median, "quartiles": [value.low, value.high], "rounds": value.rounds}
        else:
            row |= {"value": float(value)}
        if target is not None:
            met = row["value"] >= target if at_least else row["value"] <= target
            row |= {"target": f"{'≥' if at_least else '≤'} {target:g}", "met": met}
        row |= figures | {"torch": str(torch.__version__)}
        row = {name: _short(value) for name, value in row.items()}
        print(json.dumps(row, ensure_ascii=False), flush=True)
        same = [k for k, old in enumerate(self.rows) if (old["what"], old["against"]) == (what, against)]
        self.rows[slice(same[0], same[0] + 1) if same else slice(len(self.rows), None)] = [row]

    def write(self) -> None:
        """The rows with the description of this machine, as JSON and as a table."""
        self.path.parent.mkdir(exist_ok=True)
        text = json.dumps({"machine": machine(), "rows": self.rows}, ensure_ascii=False, indent=1)
        self.path.write_text(text + "\n", encoding="utf-8")
        about = ", ".join(
            str(value) + (" cores" if name == "cores" else "") for name, value in machine().items() if value
        )
        self.path.with_suffix(".md").write_text(f"{about}; one thread\n\n{self.table()}", encoding="utf-8")

    def table(self) -> str:
        """Markdown; all figures are ratios of ours to theirs unless the row says otherwise."""
        lines = [
            "| what | against | ratio of | value | quartiles | target | met | other figures |",
            "|---|---|---|---|---|---|---|---|",
        ]
        known = ("what", "against", "measure", "value", "quartiles", "rounds", "target", "met")
        for row in self.rows:
            quartiles = " to ".join(f"{x:.3g}" for x in row.get("quartiles", ()))
            met = {True: "yes", False: "**no**", None: ""}[row.get("met")]
            figures = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items() if name not in known)
            lines.append(
                f"| {row['what']} | {row['against']} | {row['measure']} | {row['value']:.3g} | {quartiles} "
                f"| {row.get('target', '')} | {met} | {figures} |"
            )
        return "\n".join(lines) + "\n"


def _short(value):
    """Numbers with the digits that mean something."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_short(item) for item in value] if isinstance(value, list) else value
