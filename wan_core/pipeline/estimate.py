"""How much memory a generation will need, from its numbers alone."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from ..config import ImageEncoderConfig, Preset, TextConfig
from ..dit import WanDiT
from ..flow.guidance import BATCHED_CFG_MAX_TOKENS
from ..memory.estimate import decoding_bytes, sampling_bytes
from ..shapes import VideoShape
from ..vae import WanVAE
from ..vision.encoder import parameter_shapes

FLOAT32_BYTES = 4  # the VAE always computes in float32


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
    with torch.device("meta"):
        expert, vae = WanDiT(preset.dit), WanVAE(preset.vae)
    tokens = shape.tokens(preset.vae, preset.dit) + context_tokens
    tokens *= 2 if tokens <= BATCHED_CFG_MAX_TOKENS else 1  # both passes of guidance in one batch
    return MemoryEstimate(
        expert=_parameters(expert) * dtype.itemsize,
        text_encoder=text_parameters(preset.text) * dtype.itemsize,
        vae=_parameters(vae) * FLOAT32_BYTES,
        sampling=sampling_bytes(preset.dit, tokens, dtype, per_token_timesteps=preset.vae.version == "2.2"),
        decoding=decoding_bytes(preset.vae, shape.height, shape.width),
        image_encoder=image_encoder_parameters(preset.image_encoder) * FLOAT32_BYTES if preset.image_encoder else 0,
    )


def text_parameters(config: TextConfig) -> int:
    """Number of parameters of a umT5 encoder. From its sizes: building one would import transformers."""
    attention = 4 * config.dim * config.dim_attn + config.buckets * config.heads  # q, k, v, o, position bias
    feed_forward = 3 * config.dim * config.ffn_dim  # gate, up, down
    norms = 2 * config.dim
    return config.vocab * config.dim + config.layers * (attention + feed_forward + norms) + config.dim


def image_encoder_parameters(config: ImageEncoderConfig) -> int:
    """Number of parameters of a vision encoder, as it is loaded."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
