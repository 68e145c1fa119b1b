"""How time and memory grow with frames, resolution and steps: python -m benchmarks.cpu.scale

Predicted by what `plan` prints, measured on a small model on one CPU thread. Memory: peak bytes of live tensors above
the weights. Time: CPU seconds; the prediction is the growth of the arithmetic from the first row of its table.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks import measure
from benchmarks.gpu.models import decode_flops, forward_flops, stream
from tests.support.ledger import Ledger
from wan_core import WanPipeline
from wan_core.config import PRESETS, VAEConfig
from wan_core.cpu import make_dit, make_vae
from wan_core.demo.release import DEMO_NUMBERS, demo_model
from wan_core.memory.estimate import decoding_bytes, sampling_bytes
from wan_core.pipeline import Options, Request
from wan_core.pipeline.estimate import estimate_memory
from wan_core.shapes import VideoShape

MIB, GIB, PROMPT = 2**20, 2**30, 20
FRAMES = (17, 33, 81, 161, 321)
SIZES = ((64, 64), (96, 96), (128, 128), (192, 128), (192, 192), (256, 256))
PRESET = replace(
    PRESETS["t2v-a14b"],
    dit=replace(PRESETS["t2v-a14b"].dit, dim=256, ffn_dim=691, heads=2, layers=2, text_dim=64),
    vae=VAEConfig(dim=8, decoder_dim=8),
)


def peak_of(work: Callable) -> int:
    with Ledger() as ledger:
        work()
    return ledger.peak


def seconds_of(work: Callable, times: int = 1) -> float:
    """CPU time of the fastest of so many turns."""
    return min(measure.cpu_seconds(work) for _ in range(times))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    lines = [
        f"## {title}",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
    print("\n".join(lines) + "\n", flush=True)
    return "\n".join(lines) + "\n"


NOTES = """Transformer: width 256, 2 layers, float32; VAE 2.1: width 8. Memory is the peak of live tensors above the
weights, predicted for plain torch as an accelerator runs it; fused layers of a CPU stay below. "Arithmetic grows" is
counted, from the first row of a table; time grows more slowly where a row is too small to keep the core busy. The demo
model is so small that text keys and latents, which are not estimated, weigh more than the rest."""
GROWTH = ("predicted MiB", "measured MiB", "CPU seconds", "arithmetic grows", "time grows")


def growth(measured: Sequence[tuple]) -> list[list]:
    """Rows of GROWTH behind what names them.

    Args:
        measured: (cells that name the row, predicted bytes, measured bytes, seconds, operations).
    """
    _, _, _, first_seconds, first_flops = measured[0]
    return [[*name, b / MIB, m / MIB, s, f / first_flops, s / first_seconds] for name, b, m, s, f in measured]


def forward(shapes: Sequence[VideoShape]) -> list[list]:
    """One forward of the transformer."""
    torch.manual_seed(0)
    model, measured = make_dit(PRESET.dit).eval(), []
    t, text = torch.tensor([500]), torch.randn(1, PROMPT, PRESET.dit.text_dim)
    for shape in shapes:
        x, tokens = torch.randn(1, *shape.latent(PRESET.vae)), shape.tokens(PRESET.vae, PRESET.dit)
        work, needed = lambda: model(x, t, text), sampling_bytes(PRESET.dit, tokens, torch.float32)
        name = (shape.frames, f"{shape.width}×{shape.height}", f"{tokens:,}")
        measured.append((name, needed, peak_of(work), seconds_of(work, 3), forward_flops(PRESET.dit, tokens, PROMPT)))
    return growth(measured)


def decode(shapes: Sequence[VideoShape]) -> list[list]:
    """A decode in chunks, each dropped."""
    torch.manual_seed(0)
    model, measured = make_vae(PRESET.vae).eval(), []
    for shape in shapes:
        latents = torch.randn(1, *shape.latent(PRESET.vae))
        work, name = lambda: stream(model, latents), (shape.frames, f"{shape.width}×{shape.height}")
        needed = decoding_bytes(PRESET.vae, shape.height, shape.width)
        measured.append((name, needed, peak_of(work), seconds_of(work), decode_flops(PRESET.vae, latents)))
    return growth(measured)


def steps() -> list[list]:
    """Sampling runs of the demo model. What does not grow with tokens (text keys, latents) weighs more in so small a
    model.
    """
    pipe, measured = WanPipeline.from_pretrained(demo_model("t2v-a14b"), torch_dtype=torch.float32), []
    for count in (5, 10, 20, 40):
        numbers = DEMO_NUMBERS | {"num_inference_steps": count}
        request = Request.resolve(pipe.preset, Options("A red circle moves to the right", seed=0, **numbers))
        texts = pipe.encode_prompts(request)
        work, needed = (
            lambda: pipe.denoise(request, *texts),
            estimate_memory(pipe.preset, request.shape, torch.float32).sampling,
        )
        measured.append(((count,), needed, peak_of(work), seconds_of(work), count))
    return growth(measured)


def real_sizes() -> list[list]:
    """What `plan` says of real sizes; nothing is measured."""
    rows = []
    for name, height, width in (("t2v-a14b", 480, 832), ("t2v-a14b", 720, 1280), ("ti2v-5b", 704, 1280)):
        preset = PRESETS[name]
        for frames in (17, 81, 161, 321):
            shape = VideoShape(frames, height, width)
            memory, tokens = estimate_memory(preset, shape, torch.bfloat16), shape.tokens(preset.vae, preset.dit)
            flops = forward_flops(preset.dit, tokens, 512) / 1e12
            bytes_ = (memory.expert, memory.sampling, memory.decoding, memory.peak)
            rows.append([name, f"{width}×{height}", frames, f"{tokens:,}", *(b / GIB for b in bytes_), flops])
    return rows


@torch.no_grad()
def main() -> None:
    argparse.ArgumentParser(description="Tables of how time and memory grow.").parse_args()
    by_frames, by_size = [VideoShape(n, 128, 128) for n in FRAMES], [VideoShape(17, h, w) for h, w in SIZES]
    parts = [
        table("Transformer: frames", ("frames", "size", "tokens", *GROWTH), forward(by_frames)),
        table("Transformer: resolution", ("frames", "size", "tokens", *GROWTH), forward(by_size)),
        table(
            "VAE decode: frames",
            ("frames", "size", *GROWTH),
            decode([replace(s, height=32, width=32) for s in by_frames]),
        ),
        table("VAE decode: resolution", ("frames", "size", *GROWTH), decode([replace(s, frames=5) for s in by_size])),
        table("Sampling with the demo model: steps", ("steps", *GROWTH), steps()),
        table(
            "Real sizes in bfloat16, predicted only",
            (
                "model",
                "size",
                "frames",
                "tokens",
                "expert GiB",
                "sampling GiB",
                "decoding GiB",
                "peak with offload GiB",
                "TFLOP a forward",
            ),
            real_sizes(),
        ),
    ]
    about = ", ".join(f"{value}{' cores' if name == 'cores' else ''}" for name, value in measure.machine().items())
    head = f"{about}; one thread, torch {torch.__version__}\n\n{NOTES}\n"
    measure.RESULTS.mkdir(exist_ok=True)
    (measure.RESULTS / "scale.md").write_text("\n".join([head, *parts]), encoding="utf-8")


if __name__ == "__main__":
    measure.same_settings()
    main()
