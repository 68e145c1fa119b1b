"""The transformer on a CPU: what the blocks of `wan_core.dit` compute, in fewer passes over memory and fewer products.

    norm · (1 + scale) + shift   one pass where all tokens share a timestep, in place of two
    query and key norms          their scale goes to the rotary table, which is smaller than the tokens; in place
    residuals                    added in place, see `ops.add_linear`; a block makes one copy of the stream
    cross-attention              to a short prompt, with the output projection folded into the text's values: heads · n
                                 products for a token and channel in place of D. A whole forward with a prompt of 64
                                 tokens takes 0.87 of the time of one with 512
    its softmax                  over rows, not neighbours: half the time for 65 keys

The numbers are the plain block's but for rounding: 4e-7 of the velocity in float32 (benchmarks/results/dit.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DiTConfig
from ..dit import WanDiT
from ..dit.layers import Block, CrossAttention, CrossAttnKV, Modulation, SelfAttention, modulate
from ..dit.vace import VaceBlock
from ..ops import in_float32, sdpa
from .ops import CpuOps, RMSNorm, add_linear, attention, computes_in_float32, is_bare, linear_gelu, suits

# Of the D² · L products of the output projection, heads · n · D · L and n · D² are left when folded into n values.
FOLDED_HEADS = 0.8  # heads · n is at most this part of D, since a softmax over so many rows costs something too
FOLDED_TOKENS = 8  # L is at least so many times n


def make_dit(config: DiTConfig) -> WanDiT:
    """A transformer that is fast on a CPU; anywhere else, and where gradients are asked for, it is the plain one."""
    return WanDiT(config, CpuOps, sdpa, CpuBlock, CpuVaceBlock)


class CpuBlock(Block):
    """A block of `CpuOps`; what comes in stays as it is."""

    def forward(
        self, x: Tensor, mod: Modulation, rope: Tensor, text: CrossAttnKV, image: CrossAttnKV | None = None
    ) -> Tensor:
        if not suits(self, x, mod.rows, text.k):
            return super().forward(x, mod, rope, text, image)
        dtype = text.k.dtype
        i = mod.index if len(mod.rows) > 1 else None  # None: a row (1, 1, D) for all tokens
        shift1, scale1, gate1, shift2, scale2, gate2 = mod.parts(self.modulation)
        h = modulated(self.norm1, x, shift1[i], scale1[i]).to(dtype)
        x = add_self_attention(x, self.self_attn, h, rope, gate1[i])
        x = add_cross_attention(x, self.cross_attn, in_float32(self.norm3, x).to(dtype), text, image)
        h = modulated(self.norm2, x, shift2[i], scale2[i]).to(dtype)
        return add_linear(x, self.ffn[2], linear_gelu(self.ffn[0], h), gate2[i], inplace=True)


class CpuVaceBlock(CpuBlock, VaceBlock):
    """The same in the control branch."""


def modulated(norm: nn.LayerNorm, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) · (1 + scale) + shift, for a norm without weights of its own."""
    if scale.numel() == x.shape[-1]:
        return F.layer_norm(x, x.shape[-1:], scale.flatten() + 1, shift.flatten(), norm.eps)
    return modulate(norm(x), shift, scale)


def add_self_attention(x: Tensor, layer: SelfAttention, h: Tensor, rope: Tensor, gate: Tensor) -> Tensor:
    """x + gate · layer(h), x and h (B, L, D)."""
    attend = attention if layer.attention is sdpa else layer.attention
    q = rotated(layer, layer.norm_q, layer.q(h), rope)
    k = rotated(layer, layer.norm_k, layer.k(h), rope)
    return add_linear(x, layer.o, attend(q, k, layer.split(layer.v(h)), None).flatten(2), gate)


def rotated(layer: SelfAttention, norm: RMSNorm, x: Tensor, rope: Tensor) -> Tensor:
    """norm(x) by head, rotated: (B, L, heads, head_dim). x (B, L, D) is written over where it is float32."""
    wide = x.float()
    table = rope * norm.scale(wide)  # (B, L, head_dim / 2)
    pairs = torch.view_as_complex(layer.split(wide.mul_(norm.weight)).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs.mul_(table.unsqueeze(-2))).flatten(-2).to(x.dtype)


def add_cross_attention(
    x: Tensor, layer: CrossAttention, h: Tensor, text: CrossAttnKV, image: CrossAttnKV | None = None
) -> Tensor:
    """x + layer(h), over x; x and h (B, L, D)."""
    if image is None and folding_pays(layer, h, text):
        return fold_output_projection(x, layer, h, text)
    attend = attention if layer.attention is sdpa else layer.attention
    q = layer.split(layer.norm_q(layer.q(h)))
    out = attend(q, *text)
    if image is not None:
        out += (attention if layer.image_attention is sdpa else layer.image_attention)(q, *image)
    return add_linear(x, layer.o, out.flatten(2), inplace=True)


def folding_pays(layer: CrossAttention, h: Tensor, text: CrossAttnKV) -> bool:
    """Whether a prompt has so few tokens that `fold_output_projection` is faster, and right: sdpa of bare layers."""
    n, (_, tokens, channels) = text.k.shape[1], h.shape
    few = layer.heads * n <= FOLDED_HEADS * channels and FOLDED_TOKENS * n <= tokens
    return few and layer.attention is sdpa and is_bare(layer.o, h) and computes_in_float32(h.dtype)


def fold_output_projection(x: Tensor, layer: CrossAttention, h: Tensor, text: CrossAttnKV) -> Tensor:
    """x + layer(h), over x, with the output projection on the text's values.

    All is linear but the softmax and the norm, so the norm's weight goes to the keys, and its scale to the scores.
    """
    q, k, v = layer.q(h).float(), text.k.float(), text.v.float()
    k = k * layer.split(layer.norm_q.weight * k.shape[-1] ** -0.5)
    scores = k.transpose(1, 2) @ layer.split(q).permute(0, 2, 3, 1)  # (B, heads, n, L)
    scores *= layer.norm_q.scale(q).transpose(1, 2).unsqueeze(1)
    if text.bias is not None:
        scores += text.bias.unsqueeze(-1)
    torch.softmax(scores, dim=2, out=scores)
    values = v.transpose(1, 2) @ layer.split(layer.o.weight.float()).permute(1, 2, 0)  # (B, heads, n, D)
    values += layer.o.bias / layer.heads  # once in all: a head's scores sum to 1
    return x.baddbmm_(scores.flatten(1, 2).transpose(1, 2), values.flatten(1, 2).expand(len(x), -1, -1))
