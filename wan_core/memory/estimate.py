"""How much memory a generation will need, from its numbers alone."""

from dataclasses import dataclass

import torch

from ..config import BATCHED_CFG_MAX_TOKENS, DiTConfig, Preset, VAEConfig
from ..shapes import VideoShape


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


def dit_parameters(config: DiTConfig) -> int:
    """Number of parameters of a transformer."""
    d, f = config.dim, config.ffn_dim
    patch = config.patch[0] * config.patch[1] * config.patch[2]
    block = (
        8 * (d * d + d) + 4 * d + 2 * d + 2 * d * f + f + d + 6 * d
    )  # projections, q/k norms, norm3, ffn, modulation
    embeddings = (
        d * (config.in_channels * patch + 1) + d * (config.text_dim + 1 + d + 1) + d * (config.freq_dim + 1 + d + 1)
    )
    time_projection = 6 * d * (d + 1)
    head = patch * config.out_channels * (d + 1) + 2 * d
    vace = 0
    if config.vace_layers:
        hints = len(config.vace_layers)
        vace = d * (config.vace_channels * patch + 1) + hints * (block + d * d + d) + d * d + d
    return config.layers * block + embeddings + time_projection + head + vace


def sampling_bytes(config: DiTConfig, tokens: int, dtype: torch.dtype, per_token_timesteps: bool = False) -> int:
    """Peak of one transformer call above its weights: the float32 stream and the widest point of a block."""
    stream = 4 * config.dim  # one float32 row
    rope = 4 * config.head_dim
    attention = 5 * stream + 4 * dtype.itemsize * config.dim  # x, normed, gate·y, q and k rotated; q, k, v, out
    feed_forward = 3 * stream + 2 * dtype.itemsize * config.ffn_dim
    extra = stream // 2 + (2 * stream if config.vace_layers else 0)  # VACE: control tokens and a hint
    if per_token_timesteps:
        extra += 3 * stream  # shift, scale and gate of every token
    return tokens * (max(attention, feed_forward) + rope + extra)


def decoding_bytes(config: VAEConfig, height: int, width: int, itemsize: int = 4) -> int:
    """Peak of decoding, two frames at a time at the last stages, feature cache included; independent of the clip's length."""
    full = height * width // config.pixel_fold**2 * config.decoder_dim  # one frame at the last stage
    cache = 2 * 7 * 2 * full  # two frames for each of its seven convolutions, and as much again below it
    working = (12 if config.version == "2.1" else 27) * full
    return (cache + working) * itemsize


def estimate(preset: Preset, shape: VideoShape, dtype: torch.dtype) -> MemoryEstimate:
    """Memory of a generation with this model's sizes."""
    text = preset.text
    per_layer = 4 * text.dim * text.dim_attn + 3 * text.dim * text.ffn_dim + 2 * text.dim + text.buckets * text.heads
    text_parameters = text.vocab * text.dim + text.layers * per_layer + text.dim
    vae_parameters = {"2.1": 126_892_531, "2.2": 704_688_668}[preset.vae.version]
    base = VAEConfig() if preset.vae.version == "2.1" else VAEConfig.wan22()
    tokens = shape.tokens(preset.vae, preset.dit)
    tokens *= 2 if tokens <= BATCHED_CFG_MAX_TOKENS else 1  # both passes of guidance in one batch
    return MemoryEstimate(
        expert=dit_parameters(preset.dit) * dtype.itemsize,
        text_encoder=text_parameters * dtype.itemsize,
        vae=int(vae_parameters * (preset.vae.decoder_dim / base.decoder_dim) ** 2) * 4,
        sampling=sampling_bytes(preset.dit, tokens, dtype, per_token_timesteps=preset.task == "ti2v"),
        decoding=decoding_bytes(preset.vae, shape.height, shape.width),
    )
