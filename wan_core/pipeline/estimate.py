"""How much memory a generation will need, from its numbers alone."""

from dataclasses import dataclass

import torch
from torch import nn

from ..config import Preset, TextConfig
from ..dit import WanDiT
from ..flow.guidance import BATCHED_CFG_MAX_TOKENS
from ..memory.estimate import decoding_bytes, sampling_bytes
from ..shapes import VideoShape
from ..vae import WanVAE

FLOAT32_BYTES = 4  # the VAE always computes in float32


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes. `sampling` and `decoding` are peaks above the weights."""

    expert: int  # weights of one expert
    text_encoder: int
    vae: int
    sampling: int
    decoding: int

    @property
    def peak(self) -> int:
        """On the device when only the part at work is there (`enable_model_cpu_offload`)."""
        return max(self.text_encoder, self.expert + self.sampling, self.vae + self.decoding)


def estimate_memory(preset: Preset, shape: VideoShape, dtype: torch.dtype) -> MemoryEstimate:
    """Memory of a generation with this model's sizes, transformer and text encoder stored in `dtype`."""
    with torch.device("meta"):
        expert, vae = WanDiT(preset.dit), WanVAE(preset.vae)
    tokens = shape.tokens(preset.vae, preset.dit)
    tokens *= 2 if tokens <= BATCHED_CFG_MAX_TOKENS else 1  # both passes of guidance in one batch
    return MemoryEstimate(
        expert=_parameters(expert) * dtype.itemsize,
        text_encoder=text_parameters(preset.text) * dtype.itemsize,
        vae=_parameters(vae) * FLOAT32_BYTES,
        sampling=sampling_bytes(preset.dit, tokens, dtype, per_token_timesteps=preset.task == "ti2v"),
        decoding=decoding_bytes(preset.vae, shape.height, shape.width),
    )


def text_parameters(config: TextConfig) -> int:
    """Number of parameters of a umT5 encoder. From its sizes: building one would import transformers."""
    attention = 4 * config.dim * config.dim_attn + config.buckets * config.heads  # q, k, v, o, position bias
    feed_forward = 3 * config.dim * config.ffn_dim  # gate, up, down
    norms = 2 * config.dim
    return config.vocab * config.dim + config.layers * (attention + feed_forward + norms) + config.dim


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
