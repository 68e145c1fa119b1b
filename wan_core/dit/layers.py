"""Layers of the Wan transformer. Parameter names are the official ones."""

from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DiTConfig
from ..ops import Attention, in_float32, linear_gelu
from .rope import rotate


class Modulation(NamedTuple):
    """Time modulation of all tokens, held once per distinct timestep.

    `rows` (U, 6, D) float32 for U distinct timesteps; `index` (B, 1) or (B, L) picks the row of each token.
    """

    rows: Tensor
    index: Tensor

    def parts(self, base: Tensor, first: int, last: int) -> list[Tensor]:
        """Parts `first` to `last` of base (1, n, D) + rows (U, n, D): each (1, 1, D) where U is 1, else (B, 1 or L, D)."""
        parts = (base + self.rows)[:, first:last].unbind(1)
        return [part.unsqueeze(0) if len(self.rows) == 1 else part[self.index] for part in parts]


def modulated(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x)·(1 + scale) + shift, for a layer norm without weights of its own; one pass where all tokens share a row."""
    if scale.numel() == x.shape[-1]:
        return F.layer_norm(x, x.shape[-1:], scale.flatten() + 1, shift.flatten(), norm.eps)
    return torch.addcmul(shift, norm(x), scale + 1)


class TextKeys(NamedTuple):
    """Keys and values of one block's cross-attention, and the bias that folds the padding.

    The official model pads text with zero rows to `text_len` and attends to all of them. The rows are identical,
    so m of them equal one key whose score is raised by log(m).
    """

    k: Tensor  # (B, n, heads, head_dim)
    v: Tensor
    bias: Optional[Tensor]  # (1, n), or None where nothing is folded


class SelfAttention(nn.Module):
    def __init__(self, config: DiTConfig, ops, attention: Attention):
        super().__init__()
        self.heads, self.attention = config.heads, attention
        for name in "qkvo":
            self.add_module(name, ops.Linear(config.dim, config.dim))
        self.norm_q = ops.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = ops.RMSNorm(config.dim, eps=config.eps)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:  # x (B, L, D)
        q = rotate(self.split(self.norm_q(self.q(x))), rope)
        k = rotate(self.split(self.norm_k(self.k(x))), rope)
        return self.o(self.attention(q, k, self.split(self.v(x)), None).flatten(2))


class CrossAttention(SelfAttention):
    """Attention to text: the same projections, no rotation, no mask."""

    def text_keys(self, text: Tensor, bias: Optional[Tensor]) -> TextKeys:  # text (B, n, D)
        return TextKeys(self.split(self.norm_k(self.k(text))), self.split(self.v(text)), bias)

    def forward(self, x: Tensor, text: TextKeys) -> Tensor:
        q = self.split(self.norm_q(self.q(x)))
        return self.o(self.attention(q, *text).flatten(2))


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear."""

    def __init__(self, config: DiTConfig, ops):
        super().__init__(ops.Linear(config.dim, config.ffn_dim), nn.GELU("tanh"), ops.Linear(config.ffn_dim, config.dim))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](linear_gelu(self[0], x))


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
        self.ffn = FeedForward(config, ops)
        self.modulation = nn.Parameter(nn.init.normal_(torch.empty(1, 6, config.dim), std=config.dim**-0.5))

    def forward(self, x: Tensor, mod: Modulation, rope: Tensor, text: TextKeys) -> Tensor:
        return self.feed_forward(self.attend(x, mod, rope, text), mod, text.k.dtype)

    def attend(self, x: Tensor, mod: Modulation, rope: Tensor, text: TextKeys) -> Tensor:
        dtype = text.k.dtype  # what the branches compute in
        shift, scale, gate = mod.parts(self.modulation.to(x), 0, 3)
        x = torch.addcmul(x, gate, self.self_attn(modulated(self.norm1, x, shift, scale).to(dtype), rope))
        return x + self.cross_attn(in_float32(self.norm3, x).to(dtype), text)

    def feed_forward(self, x: Tensor, mod: Modulation, dtype: torch.dtype) -> Tensor:
        shift, scale, gate = mod.parts(self.modulation.to(x), 3, 6)
        return torch.addcmul(x, gate, self.ffn(modulated(self.norm2, x, shift, scale).to(dtype)))


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
        shift, scale = Modulation(e.unsqueeze(1), index).parts(self.modulation.to(x), 0, 2)
        return in_float32(self.head, modulated(self.norm, x, shift, scale))
