"""Flow matching: the straight path from data to noise, its velocity, and the loss (arXiv 2210.02747)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import TRAIN_TIMESTEPS
from .noise import uniform
from .schedule import shift_sigma


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """(B,) → (B, 1, 1, …), to broadcast over x."""
    return values.to(x).reshape(-1, *(1 for _ in x.shape[1:]))


def interpolate(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 − σ)·x0 + σ·noise, for σ (B,) in [0, 1]."""
    sigma = _per_sample(sigma, x0)
    return (1 - sigma) * x0 + sigma * noise


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """d/dσ of the path: noise − x0, the same at every σ."""
    return noise - x0


def flow_loss(prediction: Tensor, x0: Tensor, noise: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of a velocity prediction, in float32; `weight` broadcasts over (B, C, T, H, W)."""
    error = F.mse_loss(prediction.float(), velocity_target(x0.float(), noise.float()), reduction="none")
    return (error if weight is None else error * weight).mean()


def draw_sigmas(
    count: int, shift: float, low: float = 0.0, high: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Shifted-uniform noise levels (count,) within [low, high], which restricts training to one expert's range.

    Args:
        low, high: range of σ after the shift; [boundary, 1] for the high-noise expert, [0, boundary] for the other.
    """
    first, last = (bound / (shift + (1 - shift) * bound) for bound in (low, high))  # the shift, inverted
    return shift_sigma(first + (last - first) * uniform((count,), generator), shift)


def training_timesteps(sigmas: Tensor) -> Tensor:
    """The timesteps, on the 0..1000 scale, that tell the model these noise levels."""
    return sigmas * TRAIN_TIMESTEPS
