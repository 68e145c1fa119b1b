"""Layers of the Wan transformer. Parameter names are the official ones.

Dimensions: B samples, L tokens in (t, h, w) order, D channels, n text tokens, U distinct timesteps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    def padded(self, before: int, behind: int) -> "Modulation":
        """With so many more tokens before and behind, all at the timestep of the last one."""
        if self.index.shape[1] == 1:
            return self
        last = self.index[:, -1:]
        index = torch.cat((last.expand(-1, before), self.index, last.expand(-1, behind)), dim=1)
        return replace(self, index=index)


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

    def for_batch(self, size: int) -> "CrossAttnKV":
        """The same for so many samples, where one serves them all."""
        return CrossAttnKV(self.k.expand(size, -1, -1, -1), self.v.expand(size, -1, -1, -1), self.bias)


class CrossKeys(NamedTuple):
    """A prompt and an image as the blocks see them: what the cross-attention of each attends to."""

    blocks: Sequence[CrossAttnKV]  # the text, in every main block
    vace_blocks: Sequence[CrossAttnKV]  # the text, in every VACE block
    images: Sequence[CrossAttnKV | None]  # the image, in every main block; None in a model without an image branch


def folded_scores(count: int, dtype: torch.dtype) -> Tensor:
    """What to add to the scores of a few equal keys so that they weigh as much as `count` of them.

    In float32 one key with log(count) does. bfloat16 cannot hold log(count) closely enough, so the rest goes to a
    second or third key, until less than 1e-5 of the weight is missing.
    """
    scores, left = [], float(count)
    while left > 1e-5 * count:
        score = torch.tensor(math.log(left), dtype=dtype)
        if math.exp(score) > left:
            score = torch.nextafter(score, torch.tensor(-math.inf, dtype=dtype))
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
    """Attention to text, and to an image where the model has a branch for it: no rotation, no mask.

    `image_attention` stays what it was made with when another backend takes over: the image has few keys, and
    SageAttention returns NaN for them.

    Source: Wan2.1 wan/modules/model.py WanT2VCrossAttention, WanI2VCrossAttention.
    """

    def __init__(self, config: DiTConfig, ops, attention: Attention):
        super().__init__(config, ops, attention)
        self.image_attention = attention
        if config.image_dim:
            self.k_img = ops.Linear(config.dim, config.dim)
            self.v_img = ops.Linear(config.dim, config.dim)
            self.norm_k_img = ops.RMSNorm(config.dim, eps=config.eps)

    def text_keys(self, text: Tensor, bias: Tensor | None) -> CrossAttnKV:  # text (B, n, D)
        return CrossAttnKV(self.split(self.norm_k(self.k(text))), self.split(self.v(text)), bias)

    def image_keys(self, image: Tensor, bias: Tensor | None) -> CrossAttnKV:  # image (B, n, D)
        return CrossAttnKV(self.split(self.norm_k_img(self.k_img(image))), self.split(self.v_img(image)), bias)

    def forward(self, x: Tensor, text: CrossAttnKV, image: CrossAttnKV | None = None) -> Tensor:  # x (B, L, D)
        q = self.split(self.norm_q(self.q(x)))  # (B, L, heads, head_dim)
        out = self.attention(q, *text)
        return self.o((out if image is None else out + self.image_attention(q, *image)).flatten(2))


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

    def forward(
        self, x: Tensor, mod: Modulation, rope: Tensor, text: CrossAttnKV, image: CrossAttnKV | None = None
    ) -> Tensor:
        """x (B, L, D) float32 → the same."""
        i, dtype = mod.index, text.k.dtype
        shift1, scale1, gate1, shift2, scale2, gate2 = mod.parts(self.modulation)  # each (U, D)
        x = x + gate1[i] * self.self_attn(modulate(self.norm1(x), shift1[i], scale1[i]).to(dtype), rope)
        x = x + self.cross_attn(in_float32(self.norm3, x).to(dtype), text, image)
        return x + gate2[i] * self.ffn(modulate(self.norm2(x), shift2[i], scale2[i]).to(dtype))


class ImageEmbedding(nn.Module):
    """CLIP's tokens of one image, or of the first and the last frame, as tokens that the blocks attend to.

    Source: Wan2.1 wan/modules/model.py MLPProj.
    """

    def __init__(self, config: DiTConfig, ops):
        super().__init__()
        width, dim = config.image_dim, config.dim
        self.proj = nn.Sequential(
            ops.LayerNorm(width), ops.Linear(width, width), nn.GELU(), ops.Linear(width, dim), ops.LayerNorm(dim)
        )
        self.positions = config.image_positions
        if self.positions:
            self.emb_pos = nn.Parameter(torch.zeros(1, self.positions, width))

    def forward(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """image (B, n, image_dim) → (B, n, D); tokens without a position are left out."""
        if self.positions:
            image = image[:, : self.positions].float()
            image = image + self.emb_pos.to(image)[:, : image.shape[1]]
        first, *layers, last = self.proj
        image = in_float32(first, image).to(dtype)
        for layer in layers:
            image = layer(image)
        return in_float32(last, image).to(dtype)


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
