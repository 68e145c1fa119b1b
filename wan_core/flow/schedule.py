"""The noise levels of a run, as the official samplers compute them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import SOLVERS, TRAIN_TIMESTEPS
from ..errors import InputError, quoted
from ..validate import real_number, whole_number

MAX_STEPS = 1000
MIN_SHIFT, MAX_SHIFT = 0.001, 1000  # beyond them neighbouring noise levels become equal in float32


def shift_sigma(sigma, shift: float):
    """Move noise levels in [0, 1] toward 1: shift·σ / (1 + (shift − 1)·σ). Works on numbers, arrays and tensors."""
    return shift * sigma / (1 + (shift - 1) * sigma)


@dataclass(frozen=True)
class FlowSchedule:
    """Noise levels and the timesteps that the model is told.

    Attributes:
        sigmas: (N + 1,) float32, falling from about 1 to exactly 0.
        timesteps: (N,) int64 on the 0..1000 scale, 1000·σ truncated. The solver uses the exact sigma.
    """

    sigmas: Tensor
    timesteps: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    @classmethod
    def official(cls, steps: int, shift: float, solver: str = "unipc") -> "FlowSchedule":
        """The grid of the official samplers.

        UniPC starts at σ = 1 − 1/1000 before the shift, DPM++ at exactly 1, so their timesteps differ (999 and
        1000 at the start). Euler, which the official code does not have, uses UniPC's grid.

        Args:
            steps: number of model evaluations, 1 to 1000.
            shift: 0.001 to 1000; 12 for A14B text-to-video, 5 for image-to-video and the 5B.
            solver: one of SOLVERS.
        Raises:
            InputError: an argument out of range.
        Source: Wan2.2 wan/utils/fm_solvers_unipc.py set_timesteps, fm_solvers.py get_sampling_sigmas.
        """
        steps = whole_number("the number of steps", steps, 1, MAX_STEPS)
        shift = real_number("shift", shift, MIN_SHIFT, MAX_SHIFT)
        if solver not in SOLVERS:
            raise InputError(f"solver is {quoted(solver)}", "one of " + ", ".join(SOLVERS))
        # The official code keeps 1 − 1/1000 in float32 and continues in float64 from that value.
        start = 1.0 if solver == "dpmpp_2m" else float(np.float32(1) - np.float32(1 / TRAIN_TIMESTEPS))
        sigmas = shift_sigma(np.linspace(start, 0, steps + 1)[:steps], shift)
        return cls(
            sigmas=torch.from_numpy(np.append(sigmas, 0.0).astype(np.float32)),
            timesteps=torch.from_numpy((sigmas * TRAIN_TIMESTEPS).astype(np.int64)),
        )
