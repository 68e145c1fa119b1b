"""What a step cache saves and what it costs, on the demo model: python -m benchmarks.cpu.step_cache

Each row is a threshold, or fewer steps for comparison. The error is that of the final latents against the uncached run
with the same seeds; `from exact` is the distance from a run of many steps, where an uncached run is not at 0 either.
"""

import argparse

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.demo_model import held_out_prompts, open_pipe
from scripts.demo_model.judge import look, psnr
from wan_core.demo.release import DEMO_NUMBERS
from wan_core.media.pixels import to_uint8
from wan_core.pipeline import Options, Request
from wan_core.pipeline.output import WanOutput

STEPS, EXACT = 40, 150  # the official number for A14B, and many


class Runs:
    """Generations of all prompts, and how many model calls they took."""

    def __init__(self, count: int, dtype: torch.dtype = torch.float32):
        self.pipe, self.prompts, self.calls = open_pipe(dtype=dtype), held_out_prompts(count), 0
        for expert in (self.pipe.high, self.pipe.low):
            expert.register_forward_hook(self._count)

    def _count(self, *_) -> None:
        self.calls += 1

    def latents(self, **numbers) -> tuple[Tensor, int]:
        """(latents of every prompt, model calls)."""
        self.calls, made = 0, []
        for k, (_, prompt) in enumerate(self.prompts):
            options = Options(prompt, seed=1_000 + k, **DEMO_NUMBERS | numbers)
            request = Request.resolve(self.pipe.preset, options)
            made.append(self.pipe.denoise(request, *self.pipe.encode_prompts(request)))
        return torch.cat(made), self.calls

    def frames(self, latents: Tensor) -> list:
        """uint8 clips."""
        request = Request.resolve(self.pipe.preset, Options(**DEMO_NUMBERS))
        output = WanOutput(self.pipe, request, latents)
        return [
            torch.cat([torch.from_numpy(to_uint8(c)) for c in output.chunks(k)]).numpy() for k in range(len(latents))
        ]

    def obeyed(self, frames: list) -> int:
        return sum(
            all(look(clip).agrees(scene).values()) for clip, (scene, _) in zip(frames, self.prompts, strict=True)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the step cache on the demo model.")
    parser.add_argument("--count", type=int, default=12, help="prompts (default: %(default)s)")
    options = parser.parse_args()
    report, runs = measure.Report("step_cache"), Runs(options.count)
    exact, _ = runs.latents(num_inference_steps=EXACT)
    reference, calls = runs.latents(num_inference_steps=STEPS)
    clips = runs.frames(reference)
    rows = {f"step_cache={threshold}": {"step_cache": threshold} for threshold in (0.0, 0.02, 0.05, 0.1, 0.2)}
    rows |= {f"{steps} steps": {"num_inference_steps": steps} for steps in (30, 20)}
    for name, numbers in rows.items():
        latents, made = runs.latents(**{"num_inference_steps": STEPS} | numbers)
        frames = runs.frames(latents)
        figures = {"error": measure.error(latents, reference), "from exact": measure.error(latents, exact)}
        if figures["error"]:
            figures["PSNR dB"] = sum(psnr(a, b) for a, b in zip(frames, clips, strict=True)) / len(clips)
        figures["prompts obeyed"] = f"{runs.obeyed(frames)}/{len(clips)}"
        report.add(name, f"every one of {STEPS} steps", made / calls, measure="model calls", **figures)
    report.write()


if __name__ == "__main__":
    measure.same_settings()
    main()
