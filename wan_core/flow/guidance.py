"""Classifier-free guidance as a velocity (x, t) → v."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .session import Model, Velocity

# Clips of up to so many tokens have both passes of guidance in one batch. On a CPU one batch takes 0.8 of the time of
# two calls at 80 tokens, and more than two calls from 720 on (benchmarks/results/pipeline.md).
BATCHED_CFG_MAX_TOKENS = 512


class GuidedVelocity:
    """The guided velocity of one text, from whichever expert is to answer.

    Args:
        expert_for: timestep (0..1000) → the model that answers a step starting there, and its guidance scale.
        positive, negative: text embeddings (B, n, text_dim); negative may be None where every scale is 1.
        stacked: the two in one batch (2, n, text_dim): both passes of a single sample are then one call of the model.
            None: one call each.
        conditions: handed to the model as keywords, such as y and vace.
    """

    def __init__(
        self,
        expert_for: Callable[[float], tuple[Model, float]],
        positive: Tensor,
        negative: Tensor | None,
        stacked: Tensor | None,
        conditions: Mapping[str, Any],
    ):
        self._expert_for = expert_for
        self._positive, self._negative, self._stacked = positive, negative, stacked
        self._conditions = conditions

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity at x (B, C, T, H, W); t is one timestep, one a sample (B,), or one a token (B, L)."""
        t = row_per_sample(t, x)
        model, scale = self._expert_for(step_start(t))
        return self._guide(model, scale, x, t)

    def _guide(self, model: Model, scale: float, x: Tensor, t: Tensor) -> Tensor:
        if scale == 1 or self._negative is None:
            return model(x, t, self._positive, **self._conditions)
        if self._stacked is not None and len(x) == 1:
            positive, negative = model(torch.cat((x, x)), t, self._stacked, **self._conditions).chunk(2)
        else:
            positive = model(x, t, self._positive, **self._conditions)
            negative = model(x, t, self._negative, **self._conditions)
        return combine(positive, negative, scale)


class PerSample:
    """Several velocities as one: sample k of the batch is answered by the k-th, so it does not depend on the others.

    Args:
        velocities: one for each sample.
    """

    def __init__(self, velocities: Sequence[Velocity]):
        self._velocities = velocities

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        samples = zip(self._velocities, x.split(1), row_per_sample(t, x).split(1), strict=True)
        return torch.cat([velocity(x, t) for velocity, x, t in samples])


def row_per_sample(t: Tensor | float, x: Tensor) -> Tensor:
    """Timesteps on x's device; a single one is repeated for each sample of x."""
    t = torch.as_tensor(t, device=x.device)
    return t.expand(len(x)) if t.ndim == 0 else t


def step_start(t: Tensor) -> float:
    """The timestep that a step starts at. Of timesteps by token it is the largest: given frames are at 0."""
    return float(t.max())


def combine(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """v_u + scale·(v_c − v_u)."""
    return negative + scale * (positive - negative)


def stack_prompts(positive: Tensor, negative: Tensor) -> Tensor:
    """Two texts (1, n, text_dim) in one batch (2, n, text_dim); the shorter is padded with zeros, as models pad it."""
    n = max(positive.shape[1], negative.shape[1])
    return torch.cat([F.pad(text, (0, 0, 0, n - text.shape[1])) for text in (positive, negative)])
