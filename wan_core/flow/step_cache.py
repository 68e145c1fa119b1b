"""Reusing velocities between steps, as an option. It changes the clip; off by default."""

import math
from collections.abc import Callable

from torch import Tensor


class StepCache:
    """The velocity of one expert for one sample, computed only where it is expected to have changed.

    Between two computed steps the velocity changed by `rate` for each unit that the latent moved. The same rate says how
    much it will have changed since: while that stays below `threshold` of the velocity's own size, the old velocity is
    given again. The first two calls are always computed. Sizes are mean absolute values.

    On the demo model at 40 steps 0.05 leaves out 18% of the calls at an error of 0.06 of the final latents, and 0.1 49% at
    0.10 (benchmarks/results/step_cache.md). Source: EasyCache (arXiv 2507.02860), whose rate this is.

    Args:
        threshold: relative change, 0 to 1; 0 computes every step.
    """

    def __init__(self, threshold: float):
        self.threshold, self.rate = threshold, math.inf
        self.x: Tensor | None = None  # the latent and the velocity of the last computed step
        self.v: Tensor | None = None

    def __call__(self, x: Tensor, compute: Callable[[], Tensor], always: bool = False) -> Tensor:
        """The velocity at x.

        Args:
            compute: runs the model.
            always: compute, whatever is expected.
        """
        if self.x is None:
            return self._keep(x, compute())
        moved = size(x - self.x)
        if not always and self.rate * moved < self.threshold * size(self.v):
            return self.v
        v = compute()
        self.rate = size(v - self.v) / moved if moved else math.inf
        return self._keep(x, v)

    def _keep(self, x: Tensor, v: Tensor) -> Tensor:
        self.x, self.v = x, v
        return v


def size(x: Tensor) -> float:
    return float(x.abs().mean())
