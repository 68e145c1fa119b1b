"""Working memory of the models, above their weights, from their sizes alone.

Counted for plain torch, as an accelerator runs it: the layers of `wan_core.cpu` need less. Tests hold both within a
fifth of the peak of live tensors.
"""

import torch

from ..config import DiTConfig, VAEConfig


def sampling_bytes(config: DiTConfig, tokens: int, dtype: torch.dtype, per_token_timesteps: bool = False) -> int:
    """Peak of one transformer call: the widest point of a block, which is its attention or its feed-forward."""
    residual = 4 * config.dim  # one token, float32
    rope = 4 * config.head_dim
    attention = 5 * residual + 4 * dtype.itemsize * config.dim  # x, normed, gate·y, rotated q and k; q, k, v, out
    feed_forward = 3 * residual + 2 * dtype.itemsize * config.ffn_dim  # x, normed, out; before and after GELU
    extra = residual // 2 + (2 * residual if config.vace_layers else 0)  # VACE: control tokens and what they add
    if per_token_timesteps:
        extra += 3 * residual  # shift, scale and gate of every token
    return tokens * (max(attention, feed_forward) + rope + extra)


# What the first residual block of the decoder's last stage holds at once, in frames of that stage: two frames of x, of
# x normalised, of x activated, that behind two earlier frames, and of the output. In 2.2 x is twice as wide, and the
# stage before still holds its input for a shortcut.
_DECODER_WORKING_FRAMES = {"2.1": 12, "2.2": 27}


def decoding_bytes(config: VAEConfig, height: int, width: int, itemsize: int = 4) -> int:
    """Peak of decoding, two frames at a time at the last stage, feature cache included; whatever the clip's length."""
    frame = height * width // config.pixel_fold**2 * config.decoder_dim  # at the last stage
    cache = 2 * 7 * 2 * frame  # two frames for each of its seven convolutions, and as much again in the stages before
    return (cache + _DECODER_WORKING_FRAMES[config.version] * frame) * itemsize
