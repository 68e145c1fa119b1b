"""Classifier-free guidance."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def guided(conditional: Callable[[], Tensor], unconditional: Callable[[], Tensor], scale: float) -> Tensor:
    """The two velocities combined. A scale of 1 is the first, and the negative pass is not run."""
    positive = conditional()
    return positive if scale == 1 else combine(positive, unconditional(), scale)


def combine(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """v_u + scale·(v_c − v_u)."""
    return negative + scale * (positive - negative)


def stack_prompts(positive: Tensor, negative: Tensor) -> Tensor:
    """Two texts (1, n, text_dim) as one batch (2, n, text_dim), the shorter one padded with zeros, as the models do themselves."""
    n = max(positive.shape[1], negative.shape[1])
    return torch.cat([F.pad(text, (0, 0, 0, n - text.shape[1])) for text in (positive, negative)])
