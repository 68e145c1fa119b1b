"""Layers of the Wan transformer. Parameter names are the official ones.

Dimensions: B samples, L tokens in (t, h, w) order, D channels, n text tokens, U distinct timesteps.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import DiTConfig
from ..ops import Attention, in_float32
from .rope import rotate


@dataclass(frozen=True)
class Modulation:
    """Time modulation of all tokens, held once per distinct timestep."""

    rows: Tensor  # (U, 6, D) float32
    index: Tensor  # (B, 1) or (B, L): the row of each token

    def parts(self, base: Tensor) -> tuple[Tensor, ...]:
        """base (1, n, D) + rows (U, 1 or n, D), as n parts (U, D); `part[index]` is what the tokens get."""
        return (base.to(self.rows) + self.rows).unbind(1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x · (1 + scale) + shift; x (B, L, D), the others (B, 1 or L, D)."""
    return torch.addcmul(shift, x, 1 + scale)


class CrossAttnKV(NamedTuple):
    """Keys and values of one block's cross-attention, and the bias that folds the padding.

    The official model pads text with zero rows to `text_len` and attends to all of them. The rows are identical,
    so m of them equal one key whose score is raised by log(m).
    """

    k: Tensor  # (B, n, heads, head_dim), in the dtype that the branches compute in
    v: Tensor
    bias: Tensor | None  # (1, n), or None where nothing is folded


class TextCache(NamedTuple):
    """A prompt as the blocks see it: cross-attention keys and values of every main block and every VACE block."""

    blocks: list[CrossAttnKV]
    vace_blocks: list[CrossAttnKV]


def folded_scores(count: int, dtype: torch.dtype) -> Tensor:
    """What to add to the scores of a few equal keys so that they weigh as much as `count` of them.

    In float32 one key with log(count) does. bfloat16 cannot hold log(count) closely enough, so the rest goes to a
    second or third key, until less than 1e-5 of the weight is missing.
    """
    scores, left = [], float(count)
    while left > 1e-5 * count:
        score = torch.tensor(math.log(left), dtype=dtype, device="cpu")
        if math.exp(score) > left:
            score = torch.nextafter(score, torch.tensor(-math.inf, dtype=dtype, device="cpu"))
        scores.append(score)
        left -= math.exp(score)
    return torch.stack(scores)


class Projections(nn.Module):
    """What both attentions of a block have: projections, and norms of queries and keys over all heads."""

    def __init__(self, config: DiTConfig, ops, attention: Attention):
        super().__init__()
        self.heads, self.attention = config.heads, attention
        self.q = ops.Linear(config.dim, config.dim)
        self.k = ops.Linear(config.dim, config.dim)
        self.v = ops.Linear(config.dim, config.dim)
        self.o = ops.Linear(config.dim, config.dim)
        self.norm_q = ops.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = ops.RMSNorm(config.dim, eps=config.eps)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))  # (…, D) → (…, heads, head_dim)


class SelfAttention(Projections):
    """Attention among all tokens of a video, with rotary positions."""

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:  # x (B, L, D), rope (L, head_dim / 2)
        q = rotate(self.split(self.norm_q(self.q(x))), rope)  # (B, L, heads, head_dim)
        k = rotate(self.split(self.norm_k(self.k(x))), rope)
        return self.o(self.attention(q, k, self.split(self.v(x)), None).flatten(2))


class CrossAttention(Projections):
    """Attention to text: no rotation, no mask."""

    def text_keys(self, text: Tensor, bias: Tensor | None) -> CrossAttnKV:  # text (B, n, D)
        return CrossAttnKV(self.split(self.norm_k(self.k(text))), self.split(self.v(text)), bias)

    def forward(self, x: Tensor, text: CrossAttnKV) -> Tensor:  # x (B, L, D)
        q = self.split(self.norm_q(self.q(x)))  # (B, L, heads, head_dim)
        return self.o(self.attention(q, *text).flatten(2))


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward; the residual stream is float32, the branches are not.

    Source: Wan2.2 wan/modules/model.py WanAttentionBlock.
    """

    def __init__(self, config: DiTConfig, ops, attention: Attention):
        super().__init__()
        self.norm1 = ops.LayerNorm(config.dim, eps=config.eps, elementwise_affine=False)
        self.self_attn = SelfAttention(config, ops, attention)
        self.norm3 = ops.LayerNorm(config.dim, eps=config.eps)
        self.cross_attn = CrossAttention(config, ops, attention)
        self.norm2 = ops.LayerNorm(config.dim, eps=config.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            ops.Linear(config.dim, config.ffn_dim), nn.GELU("tanh"), ops.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(nn.init.normal_(torch.empty(1, 6, config.dim), std=config.dim**-0.5))

    def forward(self, x: Tensor, mod: Modulation, rope: Tensor, text: CrossAttnKV) -> Tensor:
        """x (B, L, D) float32 → the same."""
        i, dtype = mod.index, text.k.dtype
        shift1, scale1, gate1, shift2, scale2, gate2 = mod.parts(self.modulation)  # each (U, D)
        x = x + gate1[i] * self.self_attn(modulate(self.norm1(x), shift1[i], scale1[i]).to(dtype), rope)
        x = x + self.cross_attn(in_float32(self.norm3, x).to(dtype), text)
        return x + gate2[i] * self.ffn(modulate(self.norm2(x), shift2[i], scale2[i]).to(dtype))


class Head(nn.Module):
    """Final norm, modulated by the time embedding itself (not its projection), and projection to patches."""

    def __init__(self, config: DiTConfig, ops):
        super().__init__()
        patch = config.patch[0] * config.patch[1] * config.patch[2]
        self.norm = ops.LayerNorm(config.dim, eps=config.eps, elementwise_affine=False)
        self.head = ops.Linear(config.dim, patch * config.out_channels)
        self.modulation = nn.Parameter(nn.init.normal_(torch.empty(1, 2, config.dim), std=config.dim**-0.5))

    def forward(self, x: Tensor, e: Tensor, index: Tensor) -> Tensor:
        """x (B, L, D), e (U, D) time embedding of each distinct timestep, index (B, 1 or L) → (B, L, patch values)."""
        shift, scale = Modulation(e.unsqueeze(1), index).parts(self.modulation)
        return in_float32(self.head, modulate(self.norm(x), shift[index], scale[index]))
