"""Rotary position embedding over the (time, height, width) grid of tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

BASE = 10000.0


def rope_table(positions: Sequence[Tensor], head_dim: int, device=None, source: int = 0) -> Tensor:
    """Rotations (T·h·w, head_dim/2), complex64, tokens in (t, h, w) order with w fastest.

    Height and width get 2·(d//6) channels each and time the rest; each axis has its own frequency ladder.
    Angles are computed in float64.

    Args:
        positions: of the tokens along t, h and w; 0, 1, 2, … in the official model.
        source: 0 for the video; n for the nth context of Bernini, all of whose tokens are turned by n more along a
            ladder over the whole head.
    Source: Wan2.2 wan/modules/model.py rope_params, rope_apply; Bernini's source ids.
    """
    spatial = 2 * (head_dim // 6)
    sizes = head_dim - 2 * spatial, spatial, spatial
    offsets = (source * _ladder(head_dim)).split([size // 2 for size in sizes])
    axes = []
    for position, channels, offset in zip(positions, sizes, offsets, strict=True):
        angles = torch.outer(position.double(), _ladder(channels)) + offset
        axes.append(torch.polar(torch.ones_like(angles), angles).to(torch.complex64))
    t, h, w = (len(position) for position in positions)
    return (
        torch.cat(
            [
                axes[0].view(t, 1, 1, -1).expand(t, h, w, -1),
                axes[1].view(1, h, 1, -1).expand(t, h, w, -1),
                axes[2].view(1, 1, w, -1).expand(t, h, w, -1),
            ],
            dim=-1,
        )
        .flatten(0, 2)
        .to(device)
    )


def _ladder(channels: int) -> Tensor:
    """Angle (channels/2,) between neighbouring positions of each channel pair."""
    return BASE ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate neighbouring channel pairs of x (B, L, heads, head_dim) by `table` (L, head_dim/2); keeps x's dtype."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (B, L, heads, head_dim / 2)
    return torch.view_as_real(pairs * table.unsqueeze(-2)).flatten(-2).to(x.dtype)
