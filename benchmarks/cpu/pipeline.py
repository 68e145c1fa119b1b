"""A whole generation: what is no model call, what is computed twice, guidance in one batch, and the switch between
experts from a slow disk.

    python -m benchmarks.cpu.pipeline [rest repeated guidance switch]
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

import wan_core.memory.offload
from benchmarks import measure
from wan_core import WanPipeline
from wan_core.config import DiTConfig
from wan_core.cpu import make_dit
from wan_core.demo.release import DEMO_NUMBERS, demo_model
from wan_core.flow import Experts
from wan_core.testing import write_tiny_model

WIDE = DiTConfig(
    dim=512, ffn_dim=1408, heads=4, layers=8, text_dim=64
)  # experts whose calls take long enough to be real
PROMPT = "A red circle moves to the right"


def wide_pipe(folder: str) -> WanPipeline:
    """The tiny release with wider experts."""
    pipe = WanPipeline.from_pretrained(write_tiny_model(folder))
    torch.manual_seed(0)
    pipe.high, pipe.low = (make_dit(WIDE).eval().requires_grad_(False) for _ in range(2))
    return pipe


class Watch:
    """CPU seconds inside the model calls of a pipeline."""

    def __init__(self, pipe: WanPipeline):
        self.inside, self._start = 0.0, 0.0
        for model in (pipe.high, pipe.low, pipe.text_encoder, pipe.vae):
            model.register_forward_pre_hook(lambda *_: self._begin())
            model.register_forward_hook(lambda *_: self._end())

    def _begin(self) -> None:
        self._start = time.process_time()

    def _end(self) -> None:
        self.inside += time.process_time() - self._start


def rest(report: measure.Report, rounds: int) -> None:
    """The share of a warm generation, from prompt to latents, that is spent outside of model calls."""
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            "512 wide, 480 tokens, 4 steps": (
                wide_pipe(folder),
                dict(height=128, width=192, num_frames=17, num_inference_steps=4),
            ),
            "demo model, 320 tokens, 20 steps": (
                WanPipeline.from_pretrained(demo_model("t2v-a14b"), torch.float32),
                DEMO_NUMBERS,
            ),
        }
        for name, (pipe, numbers) in cases.items():
            pipe(PROMPT, seed=1, **numbers)  # warm
            watch, shares = Watch(pipe), []
            for _ in range(rounds):
                watch.inside = 0.0
                total = measure.cpu_seconds(lambda: pipe(PROMPT, seed=1, **numbers))
                shares.append((total - watch.inside) / total)
            target = 0.01 if pipe.high.config is WIDE else None  # a call of the demo model takes 6 ms
            report.add(f"all that is no model call: {name}", "the whole generation", measure.Ratio.of(shares), target)


def repeated(report: measure.Report) -> None:
    """What goes through the text encoder and the layers of text, cross-attention keys and time again, and tables made
    again.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, inputs in (("t2v-a14b", {}), ("ti2v-5b", {"image": torch.zeros(3, 64, 64)})):
            pipe = WanPipeline.from_pretrained(write_tiny_model(Path(folder) / name, name))
            seen, again = set(), Counter()

            def note(kind: str, key) -> None:
                again[kind] += key in seen
                seen.add(key)

            def rows(layer: nn.Module, given: tuple[Tensor, ...], kind: str) -> None:
                for part in given[0] if kind == "time" else given:  # timesteps one by one, a prompt as a whole
                    note(kind, (id(layer), tuple(part.flatten().tolist())))

            for expert in filter(None, (pipe.high, pipe.low)):
                layers = [
                    ("text projection", expert.text_embedding[0]),
                    ("time", expert.time_embedding[0]),
                    ("time", expert.time_projection[1]),
                ]
                layers += [
                    ("cross-attention keys", layer)
                    for block in expert.blocks
                    for layer in (block.cross_attn.k, block.cross_attn.v)
                ]
                for kind, layer in layers:
                    layer.register_forward_pre_hook(lambda m, given, kind=kind: rows(m, given, kind))
                expert.rope = lambda grid, device, expert=expert, make=expert.rope: (
                    note("rope", (id(expert), grid)),
                    make(grid, device),
                )[1]
            pipe.text_encoder.register_forward_pre_hook(
                lambda m, given: note("umT5", tuple(given[0].flatten().tolist()))
            )
            pipe(
                PROMPT,
                negative_prompt="blue",
                height=64,
                width=64,
                num_frames=5,
                num_inference_steps=8,
                seed=1,
                **inputs,
            )
            report.add(
                f"work done twice in a run, {name}", "nothing", sum(again.values()), 0, measure="repetitions", **again
            )


def guidance(report: measure.Report, rounds: int) -> None:
    """Both passes in one batch against one after the other: `BATCHED_CFG_MAX_TOKENS` is below where this becomes 1."""
    for config in (DiTConfig(dim=128, ffn_dim=352, heads=4, layers=4, text_dim=64), WIDE):
        torch.manual_seed(0)
        model = make_dit(config).eval().requires_grad_(False)
        torch.nn.init.normal_(model.head.head.weight, std=0.1)
        positive, negative = (torch.randn(1, n, config.text_dim) for n in (20, 60))
        for grid in ((5, 8, 8), (5, 16, 16), (5, 24, 24), (5, 40, 40)):
            x, t = torch.randn(1, 16, *grid), torch.tensor([900])
            batched, plain = (
                Experts(model, None).velocity(positive, negative, batch_cfg=batch) for batch in (True, False)
            )
            ratio = measure.paired(lambda: batched(x, t), {"plain": lambda: plain(x, t)}, rounds)["plain"]
            tokens = grid[0] * grid[1] * grid[2] // 4
            difference = measure.error(batched(x, t), plain(x, t))
            report.add(
                f"guidance in one batch, {config.dim} wide, {tokens} tokens", "two calls", ratio, difference=difference
            )


class SlowDisk:
    """Every tensor takes its bytes over `speed` in seconds when it is touched first, in whichever thread."""

    def __init__(self, speed: float):
        self.speed, self.waited, self._read, self._lock = speed, 0.0, set(), threading.Lock()

    def touch(self, tensor: Tensor) -> None:
        start = time.perf_counter()
        with self._lock:
            if tensor.data_ptr() not in self._read:
                time.sleep(tensor.nbytes / self.speed)
                self._read.add(tensor.data_ptr())
        if threading.current_thread() is threading.main_thread():
            self.waited += time.perf_counter() - start


@contextmanager
def on_slow_disk(pipe: WanPipeline, disk: SlowDisk, prefetch: bool):
    """The experts' weights come from `disk`, prefetched or not."""

    def need(layer: nn.Module, given) -> None:
        for parameter in layer.parameters(recurse=False):
            disk.touch(parameter.data)

    hooks = [layer.register_forward_pre_hook(need) for expert in (pipe.high, pipe.low) for layer in expert.modules()]

    with mock.patch.object(wan_core.memory.offload, "read_pages", disk.touch if prefetch else lambda tensor: None):
        yield
    for hook in hooks:
        hook.remove()


def switch(report: measure.Report, rounds: int) -> None:
    """What the low-noise expert's first step waits for the disk, of a step; the disk needs two steps for an expert."""
    numbers = dict(height=128, width=192, num_frames=17, num_inference_steps=8, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        pipe = wide_pipe(folder)
        pipe.enable_model_cpu_offload()
        steps = []
        pipe(PROMPT, callback=lambda *_: steps.append(time.perf_counter()), **numbers)
        step = statistics.median(b - a for a, b in pairwise(steps))
        size = sum(p.nbytes for p in pipe.low.parameters())
        for prefetch in (True, False):
            shares, loads = [], Counter()
            for _ in range(rounds):
                disk, moments = SlowDisk(size / (2 * step)), []
                load, loads = pipe.offloader.load, Counter()

                def counted(module: nn.Module) -> nn.Module:
                    loads[module] += module not in pipe.offloader.resident
                    return load(module)

                def at_step(i, t, x, x0) -> None:
                    moments.append((time.perf_counter(), disk.waited))

                with on_slow_disk(pipe, disk, prefetch), mock.patch.object(pipe.offloader, "load", counted):
                    out = pipe(PROMPT, callback=at_step, **numbers)
                first = out.request.plan().index("low")
                others = [b[0] - a[0] - (b[1] - a[1]) for a, b in pairwise(moments)]
                shares.append((moments[first][1] - moments[first - 1][1]) / statistics.median(others))
            how = "prefetched" if prefetch else "read when it is needed"
            report.add(
                f"switch to the low-noise expert, {how}",
                "one step",
                measure.Ratio.of(shares),
                0.02 if prefetch else None,
                measure="time waited for a slowed disk",
                loads_of_each_expert=max(loads[pipe.high], loads[pipe.low]),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a generation does besides its model calls.")
    parser.add_argument("only", nargs="*", help="rest, repeated, guidance, switch; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    args = parser.parse_args()
    report, only = measure.Report("pipeline"), args.only or ["rest", "repeated", "guidance", "switch"]
    if "rest" in only:
        rest(report, args.rounds)
    if "repeated" in only:
        repeated(report)
    if "guidance" in only:
        guidance(report, args.rounds)
    if "switch" in only:
        switch(report, args.rounds)
    report.write()


if __name__ == "__main__":
    measure.same_settings()
    main()
