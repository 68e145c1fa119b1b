"""Cutting a stream of frames into the groups that the encoder takes."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..errors import InputError


def regroup(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Chunks (B, C, any t, H, W) → one frame, then groups of four; an incomplete last group is dropped.

    At most one incoming chunk and three frames are held at a time.
    Raises:
        InputError: a chunk that is not 5-D.
    """
    held, size = [], 1
    for chunk in chunks:
        if chunk.ndim != 5 or (held and chunk.shape[3:] != held[0].shape[3:]):
            raise InputError(f"a video chunk of shape {tuple(chunk.shape)}", "(B, 3, T, H, W), all of one size")
        start = 0
        while start < chunk.shape[2]:
            missing = size - sum(part.shape[2] for part in held)
            held.append(chunk[:, :, start : start + missing])
            start += held[-1].shape[2]
            if held[-1].shape[2] == missing:
                yield _join(held)
                size = 4
        del chunk  # not kept while the next one is made


def _join(parts: list[Tensor]) -> Tensor:
    """The parts as one; they are let go of."""
    whole = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
    parts.clear()
    return whole
