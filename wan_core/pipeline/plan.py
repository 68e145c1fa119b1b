"""A generation on paper: steps, experts, sizes and memory, without weights."""

from collections import Counter

import torch

from ..config import Preset
from ..shapes import latent_frames
from .estimate import estimate_memory
from .request import Request

GIB = 2**30


def step_counts(request: Request) -> str:
    """Such as "26 high-noise + 14 low-noise steps, boundary 0.875"."""
    if request.boundary is None:
        return f"{request.steps} steps"
    counts = Counter(request.plan())
    return f"{counts['high']} high-noise + {counts['low']} low-noise steps, boundary {request.boundary:g}"


def idle_experts(request: Request) -> list[str]:
    """The experts of a pair that get no step."""
    return [] if request.boundary is None else sorted({"high", "low"} - set(request.plan()))


def plan_text(preset: Preset, request: Request, dtype: torch.dtype = torch.bfloat16) -> str:
    """The plan as text: a line of numbers, the size, a row a step, and estimated memory in `dtype`."""
    shape, schedule = request.shape, request.schedule()
    memory = estimate_memory(preset, shape, dtype, request.context_tokens)
    tokens = f"{shape.tokens(preset.vae, preset.dit):,} tokens"
    if request.context_tokens:
        tokens += f" and {request.context_tokens:,} of what it is made from"
    lines = [
        f"{preset.name}: {step_counts(request)}, shift {request.shift:g}, solver {request.solver}",
        f"{shape.width}x{shape.height}, {shape.frames} frames at {preset.fps} fps ({shape.frames / preset.fps:.1f} s), "
        f"{latent_frames(shape.frames)} latent frames, {tokens}",
        "",
        "step  timestep   sigma  expert",
    ]
    for i, (t, expert) in enumerate(zip(schedule.timesteps.tolist(), request.plan(), strict=True)):
        lines.append(
            f"{i + 1:4}  {t:8}  {schedule.sigmas[i]:.4f}  {expert if request.boundary is not None else 'model'}"
        )
    lines += [
        "",
        f"estimated memory in {str(dtype).removeprefix('torch.')}, one part on the device at a time:",
        f"  text encoder  {memory.text_encoder / GIB:7.2f} GiB",
        *([f"  CLIP          {memory.image_encoder / GIB:7.2f} GiB"] if memory.image_encoder else []),
        f"  one expert    {memory.expert / GIB:7.2f} GiB, and {memory.sampling / GIB:.2f} GiB while sampling",
        f"  VAE           {memory.vae / GIB:7.2f} GiB, and {memory.decoding / GIB:.2f} GiB while decoding",
        f"  peak          {memory.peak / GIB:7.2f} GiB",
    ]
    return "\n".join(lines)
