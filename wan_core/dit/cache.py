"""What a transformer keeps between the calls of one sampling run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from .layers import CrossAttnKV, CrossKeys, Modulation

Grid = tuple[int, int, int]  # tokens along t, h and w
Kept = TypeVar("Kept")


@dataclass
class RunCache:
    """Of one run. Tensors are recognised by identity."""

    text: list[tuple[Tensor, CrossKeys]] = field(default_factory=list)  # of every prompt so far
    images: list[tuple[Tensor, list[CrossAttnKV]]] = field(default_factory=list)  # of every image so far
    rope: tuple[tuple[tuple[Grid, ...], torch.device], Tensor] | None = None  # of the last grids
    time: tuple[Tensor, tuple[Tensor, Modulation]] | None = None  # of the last timesteps
    time_rows: dict[float, tuple[Tensor, Tensor]] = field(default_factory=dict)  # timestep → e (D,), modulation (6, D)


def recall(entries: list[tuple[Tensor, Kept]], source: Tensor, make: Callable[[], Kept]) -> Kept:
    """What was made of this very tensor; where there is nothing yet, it is made now."""
    for known, kept in entries:
        if known is source:
            return kept
    entries.append((source, make()))
    return entries[-1][1]
