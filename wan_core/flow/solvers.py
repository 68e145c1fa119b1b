"""Solvers of the flow-matching ODE. Each is one function over the clean estimates x0 = x − σ·v.

λ = ln((1 − σ)/σ) is the log-SNR; it is −∞ at σ = 1 and +∞ at σ = 0, and the formulas keep their limits there.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError, NumericalError, quoted
from .schedule import FlowSchedule
from .session import Velocity

Callback = Callable[[int, int, Tensor, Tensor], None]
Denoise = Callable[[int, Tensor], Tensor]


def _log_snr(sigma: float) -> float:
    if sigma <= 0:
        return math.inf
    return math.log((1 - sigma) / sigma) if sigma < 1 else -math.inf


def euler(denoise: Denoise, x: Tensor, sigmas: list[float], pin: Callable[[Tensor], Tensor]) -> Tensor:
    """First order: x + (σ' − σ)·v."""
    for i in range(len(sigmas) - 1):
        x0 = denoise(i, x)
        x = pin(x0 + (sigmas[i + 1] / sigmas[i]) * (x - x0))
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: list[float], pin: Callable[[Tensor], Tensor]) -> Tensor:
    """DPM-Solver++(2M), midpoint form (arXiv 2211.01095, algorithm 2); first order in the last step.

    Source: Wan2.2 wan/utils/fm_solvers.py.
    """
    steps = len(sigmas) - 1
    lambdas = [_log_snr(s) for s in sigmas]
    older: Tensor | None = None  # the estimate of the step before
    for i in range(steps):
        x0 = denoise(i, x)
        h = lambdas[i + 1] - lambdas[i]
        step = -(1 - sigmas[i + 1]) * math.expm1(-h)
        x = (sigmas[i + 1] / sigmas[i]) * x + step * x0
        if older is not None and i < steps - 1:
            ratio = h / (lambdas[i] - lambdas[i - 1])
            x = x + (0.5 * step * ratio) * (x0 - older)
        x, older = pin(x), x0
    return x


def unipc(denoise: Denoise, x: Tensor, sigmas: list[float], pin: Callable[[Tensor], Tensor]) -> Tensor:
    """UniPC of order 2 with B(h) = e^h − 1 ("bh2"), predicting x0 (arXiv 2302.04867, algorithm 1).

    Each estimate first corrects the sample that it was made from, then predicts the next one. First order in the
    first and the last step. Source: Wan2.2 wan/utils/fm_solvers_unipc.py.
    """
    steps = len(sigmas) - 1
    lambdas = [_log_snr(s) for s in sigmas]
    corrected, order = x, 1
    history: list[Tensor] = []  # estimates of the steps before, newest first
    for i in range(steps):
        x0 = denoise(i, x)
        corrected = x if i == 0 else _unipc_correct(corrected, x0, history, sigmas, lambdas, i, order)
        order = min(2, steps - i, i + 1)

        h = lambdas[i + 1] - lambdas[i]
        step = -(1 - sigmas[i + 1]) * math.expm1(-h)
        x = (sigmas[i + 1] / sigmas[i]) * corrected + step * x0
        if order == 2:
            r = (lambdas[i - 1] - lambdas[i]) / h
            x = x + (0.5 * step / r) * (history[0] - x0)
        x, history = pin(x), [x0, *history[:1]]
    return x


def _unipc_correct(
    x: Tensor, x0: Tensor, history: list[Tensor], sigmas: list[float], lambdas: list[float], i: int, order: int
) -> Tensor:
    """The sample at step i, corrected with the estimate `x0` made there; `x` is the corrected sample before."""
    h = lambdas[i] - lambdas[i - 1]
    big = math.expm1(-h)  # e^−h − 1
    scale = (1 - sigmas[i]) * big
    base = (sigmas[i] / sigmas[i - 1]) * x - scale * history[0]
    if order == 1:
        return base - (0.5 * scale) * (x0 - history[0])
    r = (lambdas[i - 2] - lambdas[i - 1]) / h
    phi = big / -h - 1
    b1 = phi / big
    b2 = 2 * (phi / -h - 0.5) / big
    older = (b1 - b2) / (1 - r)
    newer = b1 - older
    return base - (scale * older / r) * (history[1] - history[0]) - (scale * newer) * (x0 - history[0])


_LOOPS = {"unipc": unipc, "dpmpp_2m": dpmpp_2m, "euler": euler}


def sample(
    velocity: Velocity,
    x: Tensor,
    schedule: FlowSchedule,
    solver: str = "unipc",
    callback: Callback | None = None,
    pin: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Integrate the flow from noise to data in one solver run.

    Args:
        velocity: (x, t) → v, all of x's shape (B, C, T, H, W); t is `schedule.timesteps[i]` as an int64 tensor (B,).
        x: noise at `schedule.sigmas[0]`. Computation is in float32.
        solver: one of SOLVERS.
        callback: called once a step with (i, t, x, x0): the step's number, its timestep, the latent it starts
            from and the clean estimate made there. An exception raised in it ends the run.
        pin: applied to the latent after every step, for instance to restore a given frame. The solver's own
            history is left alone, as in the official code.
    Returns:
        the latent at σ = 0, float32.
    Raises:
        InputError: unknown solver.
        NumericalError: the velocity is not finite; the step is named.
    """
    if solver not in _LOOPS:
        raise InputError(f"solver is {quoted(solver)}", "one of " + ", ".join(_LOOPS))
    sigmas = schedule.sigmas.double().tolist()

    def denoise(i: int, x: Tensor) -> Tensor:
        t = schedule.timesteps[i]
        v = velocity(x, t.to(x.device).expand(len(x))).float()
        if not torch.isfinite(v).all():
            raise NumericalError(
                f"step {i + 1} of {len(schedule)} (timestep {int(t)}) returned NaN or infinity",
                fix="Compute in bfloat16 instead of float16, take attention patches out, "
                "or try another checkpoint file",
            )
        x0 = x - sigmas[i] * v
        if callback is not None:
            callback(i, int(t), x, x0)
        return x0

    return _LOOPS[solver](denoise, x.float(), sigmas, pin or (lambda x: x))
