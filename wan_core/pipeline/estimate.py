"""How much memory a generation will need, from its numbers alone."""

import math
from dataclasses import dataclass

import torch

from ..checkpoints.expected import EXPECTED
from ..config import Preset
from ..flow.guidance import BATCHED_CFG_MAX_TOKENS
from ..memory.estimate import decoding_bytes, sampling_bytes
from ..shapes import VideoShape

FLOAT32_BYTES = 4  # VAE and vision encoder always compute in float32


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes. `sampling` and `decoding` are peaks above the weights."""

    expert: int  # weights of one expert
    text_encoder: int
    vae: int
    sampling: int
    decoding: int
    image_encoder: int = 0

    @property
    def peak(self) -> int:
        """On the device when only the part at work is there (`enable_model_cpu_offload`)."""
        return max(self.text_encoder, self.image_encoder, self.expert + self.sampling, self.vae + self.decoding)


def estimate_memory(preset: Preset, shape: VideoShape, dtype: torch.dtype, context_tokens: int = 0) -> MemoryEstimate:
    """Memory of a generation with this model's sizes, transformer and text encoder stored in `dtype`.

    Args:
        context_tokens: as in `Request`.
    """
    clip, tokens = preset.image_encoder, shape.tokens(preset.vae, preset.dit) + context_tokens
    tokens *= 2 if tokens <= BATCHED_CFG_MAX_TOKENS else 1  # both passes of guidance in one batch
    return MemoryEstimate(
        expert=parameters("dit", preset.dit) * dtype.itemsize,
        text_encoder=parameters("text_encoder", preset.text) * dtype.itemsize,
        vae=parameters("vae", preset.vae) * FLOAT32_BYTES,
        sampling=sampling_bytes(preset.dit, tokens, dtype, per_token_timesteps=preset.vae.version == "2.2"),
        decoding=decoding_bytes(preset.vae, shape.height, shape.width),
        image_encoder=FLOAT32_BYTES * (parameters("image_encoder", clip) if clip else 0),
    )


def parameters(kind: str, config) -> int:
    """Number of parameters of a part of these sizes, a key of `checkpoints.key_maps.PARTS`; nothing is built."""
    return sum(map(math.prod, EXPECTED[kind](config).values()))
