"""Classifier-free guidance."""

from typing import Callable

from torch import Tensor


def guided(conditional: Callable[[], Tensor], unconditional: Callable[[], Tensor], scale: float) -> Tensor:
    """v_u + scale·(v_c − v_u). A scale of 1 is v_c, and the negative pass is not run."""
    positive = conditional()
    if scale == 1:
        return positive
    negative = unconditional()
    return negative + scale * (positive - negative)
