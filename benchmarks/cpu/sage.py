"""What SageAttention's 8-bit scores change: python -m benchmarks.cpu.sage

The package's own kernels, by Triton's interpreter, so no GPU is needed; the figures are errors, not times. Needs
`pip install triton sageattention==1.0.6`, the version that is all Triton.
"""

import argparse
import os
from unittest import mock

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.cpu.step_cache import Runs
from scripts.demo_model.judge import psnr
from wan_core.attention import get_backend, use_attention
from wan_core.ops import sdpa

STEPS = 20


def sage_on_cpu():
    """The backend as `attention="sage"` makes it, told that every tensor is on a GPU."""
    with mock.patch("torch.cuda.is_available", lambda: True):
        backend = get_backend("sage")

    def sage(*tensors: Tensor | None) -> Tensor:
        with mock.patch.object(Tensor, "is_cuda", True):
            return backend(*tensors)

    return sage


def one_call(report: measure.Report, sage) -> None:
    """One attention of 4 heads of 128, with scores of two sizes: larger ones single out few keys."""
    for size in (1, 4):
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, 512, 4, 128).to(torch.bfloat16) for _ in range(3))
        exact = sdpa(q.double() * size, k.double(), v.double())
        figures = {"sdpa_in_bfloat16": measure.error(sdpa(q * size, k, v), exact)}
        report.add(
            f"attention of 512 tokens, scores {size}·N(0, 1)",
            "float64",
            measure.error(sage(q * size, k, v), exact),
            measure="error",
            **figures,
        )


def clips(report: measure.Report, sage, count: int) -> None:
    """Whole runs of the demo model in bfloat16, both experts, against float32."""
    plain, half = Runs(count), Runs(count, torch.bfloat16)
    exact, _ = plain.latents(num_inference_steps=STEPS)
    shown = plain.frames(exact)
    for name, backend in (("sdpa", sdpa), ("sage", sage)):
        for expert in (half.pipe.high, half.pipe.low):
            use_attention(expert, backend)
        latents, _ = half.latents(num_inference_steps=STEPS)
        frames = half.frames(latents)
        figures = {
            "PSNR_dB": sum(psnr(a, b) for a, b in zip(frames, shown, strict=True)) / count,
            "prompts_obeyed": f"{half.obeyed(frames)}/{count}",
        }
        figures["in_float32"] = f"{plain.obeyed(shown)}/{count}"
        report.add(
            f"demo model, {STEPS} steps, bfloat16, {name}",
            "float32",
            measure.error(latents, exact),
            measure="error of the latents",
            **figures,
        )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the error of SageAttention on the CPU.")
    parser.add_argument("--count", type=int, default=6, help="prompts (default: %(default)s)")
    options = parser.parse_args()
    os.environ["TRITON_INTERPRET"] = "1"
    report, sage = measure.Report("sage"), sage_on_cpu()
    one_call(report, sage)
    clips(report, sage, options.count)
    report.write()


if __name__ == "__main__":
    measure.same_settings()
    main()
