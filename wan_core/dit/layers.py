"""Layers of the Wan transformer. Parameter names are the official ones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DiTConfig
from ..ops import Attention, RMSNorm, add_linear, computes_in_float32, in_float32, is_plain, linear_gelu, sdpa
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


class CrossAttnKV(NamedTuple):
    """Keys and values of one block's cross-attention, and the bias that folds the padding.

    The official model pads text with zero rows to `text_len` and attends to all of them. The rows are identical,
    so m of them equal one key whose score is raised by log(m).
    """

    k: Tensor  # (B, n, heads, head_dim)
    v: Tensor
    bias: Tensor | None  # (1, n), or None where nothing is folded


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

    def forward(self, x: Tensor, rope: Tensor, onto: Tensor, gate: Tensor) -> Tensor:
        """onto + gate·(attention of x), all (B, L, D)."""
        q = self.rotated(self.norm_q, self.q(x), rope)
        k = self.rotated(self.norm_k, self.k(x), rope)
        return add_linear(onto, self.o, self.attention(q, k, self.split(self.v(x)), None).flatten(2), gate)

    def rotated(self, norm: nn.Module, x: Tensor, rope: Tensor) -> Tensor:
        """norm(x) by head, rotated."""
        if not (isinstance(norm, RMSNorm) and norm.is_direct(x)):
            return rotate(self.split(norm(x)), rope)
        wide = x.float()
        rope = rope * norm.scale(wide)  # smaller than x
        return rotate(self.split(wide.mul_(norm.weight)), rope).to(x.dtype)


class CrossAttention(SelfAttention):
    """Attention to text: the same projections, no rotation, no mask."""

    def text_keys(self, text: Tensor, bias: Tensor | None) -> CrossAttnKV:  # text (B, n, D)
        return CrossAttnKV(self.split(self.norm_k(self.k(text))), self.split(self.v(text)), bias)

    def forward(self, x: Tensor, text: CrossAttnKV, onto: Tensor) -> Tensor:
        """onto, which may be written over, + attention of x."""
        if self.is_short(x, text):
            return self.by_scores(x, text, onto)
        q = self.split(self.norm_q(self.q(x)))
        return add_linear(onto, self.o, self.attention(q, *text).flatten(2), over=True)

    def is_short(self, x: Tensor, text: CrossAttnKV) -> bool:
        """Whether `by_scores` is right and faster: a CPU, nothing that looks into the layers or wants gradients, and few keys."""
        if torch.is_grad_enabled():
            return False
        n = text.k.shape[1]
        plain = self.attention is sdpa and isinstance(self.norm_q, RMSNorm) and is_plain(self.o, x)
        return plain and computes_in_float32(x.dtype) and self.heads * n <= 0.8 * x.shape[2] and 8 * n <= x.shape[1]

    def by_scores(self, x: Tensor, text: CrossAttnKV, onto: Tensor) -> Tensor:
        """The same for n keys, with the output projection on their values: heads·n products a token and channel, not D.

        All is linear but the softmax and the norm, so the norm's weight goes to the keys, and its scale to the scores.
        """
        q, k, v = self.q(x).float(), text.k.float(), text.v.float()
        k = k * self.split(self.norm_q.weight * k.shape[-1] ** -0.5)
        # (B, heads, n, L), since a softmax over 65 neighbours takes twice as long as one over 65 rows.
        scores = k.transpose(1, 2) @ self.split(q).permute(0, 2, 3, 1)
        scores *= self.norm_q.scale(q).transpose(1, 2).unsqueeze(1)
        if text.bias is not None:
            scores += text.bias.unsqueeze(-1)
        torch.softmax(scores, dim=2, out=scores)
        values = v.transpose(1, 2) @ self.split(self.o.weight.float()).permute(1, 2, 0)  # (B, heads, n, D)
        values += self.o.bias / self.heads  # once in all: a head's scores sum to 1
        return onto.baddbmm_(scores.flatten(1, 2).transpose(1, 2), values.flatten(1, 2).expand(len(x), -1, -1))


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear; added to the stream as the attentions are, over it."""

    def __init__(self, config: DiTConfig, ops):
        super().__init__(
            ops.Linear(config.dim, config.ffn_dim), nn.GELU("tanh"), ops.Linear(config.ffn_dim, config.dim)
        )

    def forward(self, x: Tensor, onto: Tensor, gate: Tensor) -> Tensor:
        return add_linear(onto, self[2], linear_gelu(self[0], x), gate, over=True)


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

    def forward(self, x: Tensor, mod: Modulation, rope: Tensor, text: CrossAttnKV) -> Tensor:
        return self.feed_forward(self.attend(x, mod, rope, text), mod, text.k.dtype)

    def attend(self, x: Tensor, mod: Modulation, rope: Tensor, text: CrossAttnKV) -> Tensor:
        dtype = text.k.dtype  # what the branches compute in
        shift, scale, gate = mod.parts(self.modulation.to(x), 0, 3)
        x = self.self_attn(modulated(self.norm1, x, shift, scale).to(dtype), rope, x, gate)
        return self.cross_attn(in_float32(self.norm3, x).to(dtype), text, x)

    def feed_forward(self, x: Tensor, mod: Modulation, dtype: torch.dtype) -> Tensor:
        """x, which may be written over, after the last branch."""
        shift, scale, gate = mod.parts(self.modulation.to(x), 3, 6)
        return self.ffn(modulated(self.norm2, x, shift, scale).to(dtype), x, gate)


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
