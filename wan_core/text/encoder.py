"""umT5 encoder. Parameter names are the official ones. Source: Wan2.2 wan/modules/t5.py T5Encoder."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TextConfig


def relative_position_bucket(offset: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Bucket of each offset (key position minus query position), int64; bidirectional, logarithmic beyond buckets/4."""
    half = buckets // 2
    exact = half // 2
    distance = offset.abs()
    ratio = math.log(max_distance / exact)
    far = exact + (torch.log(distance.float() / exact) / ratio * (half - exact)).long()
    near_or_far = torch.where(distance < exact, distance, far.clamp(max=half - 1))
    return (offset > 0).long() * half + near_or_far


def within_half(x: Tensor) -> Tensor:
    """float16 values that overflowed, brought back into its range; other dtypes as they are."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(x.dtype).max - 1000
    return torch.nan_to_num(x, nan=0.0, posinf=limit, neginf=-limit).clamp(-limit, limit)


class RMSNorm(nn.Module):
    """Statistics in float32, result in the weight's dtype."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight.to(x)


class PositionBias(nn.Module):
    """A learned bias per head and distance bucket; every layer has its own."""

    def __init__(self, config: TextConfig, ops):
        super().__init__()
        self.embedding = ops.Embedding(config.buckets, config.heads)
        self.buckets, self.max_distance = config.buckets, config.max_distance

    def forward(self, length: int, device: torch.device) -> Tensor:
        """(1, heads, length, length): query, key."""
        position = torch.arange(length, device=device)
        bucket = relative_position_bucket(position[None, :] - position[:, None], self.buckets, self.max_distance)
        return self.embedding(bucket).permute(2, 0, 1).unsqueeze(0)


class Attention(nn.Module):
    """Attention without 1/sqrt(d) scaling and without biases in the projections."""

    def __init__(self, config: TextConfig, ops):
        super().__init__()
        self.heads = config.heads
        for name in "qkv":
            self.add_module(name, ops.Linear(config.dim, config.dim_attn, bias=False))
        self.o = ops.Linear(config.dim_attn, config.dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # x (B, L, D), bias (B or 1, heads, L, L)
        q, k, v = (proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)
        return self.o(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: TextConfig, ops):
        super().__init__()
        self.gate = nn.Sequential(ops.Linear(config.dim, config.ffn_dim, bias=False), nn.GELU("tanh"))
        self.fc1 = ops.Linear(config.dim, config.ffn_dim, bias=False)
        self.fc2 = ops.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x) * self.gate(x))


class Block(nn.Module):
    def __init__(self, config: TextConfig, ops):
        super().__init__()
        self.norm1 = RMSNorm(config.dim, config.eps)
        self.attn = Attention(config, ops)
        self.norm2 = RMSNorm(config.dim, config.eps)
        self.ffn = FeedForward(config, ops)
        self.pos_embedding = PositionBias(config, ops)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = within_half(x + self.attn(self.norm1(x), self.pos_embedding(x.shape[1], x.device) + mask))
        return within_half(x + self.ffn(self.norm2(x)))


class UMT5(nn.Module):
    """Text encoder of the Wan family.

    Args:
        config: sizes.
        ops: namespace of layer factories.
    """

    def __init__(self, config: TextConfig, ops=nn):
        super().__init__()
        self.config = config
        self.token_embedding = ops.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList(Block(config, ops) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.eps)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states.

        Args:
            ids: (B, L) int64 token ids.
            mask: (B, L), 1 for tokens and 0 for padding, which no token attends to.
        Returns:
            (B, L, dim) in the weights' dtype; rows of padding mean nothing.
        """
        x = self.token_embedding(ids)
        hidden = torch.finfo(x.dtype).min
        mask = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(mask == 0, hidden)[:, None, None]
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)
