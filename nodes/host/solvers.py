"""The official solvers as ComfyUI SAMPLERs, and the official grid as SIGMAS."""

import comfy.samplers
import torch

from ...wan_core.config import TRAIN_TIMESTEPS
from ...wan_core.flow import FlowSchedule, sample


def official_sampler(solver: str):
    """A SAMPLER that takes the official step and tells the model whole timesteps, as the official code does."""

    def run(model, x, sigmas, extra_args=None, callback=None, disable=None):
        extra_args = extra_args or {}
        timesteps = (sigmas[:-1].double().cpu() * TRAIN_TIMESTEPS + 1e-4).long()
        schedule = FlowSchedule(sigmas.float().cpu(), timesteps)
        steps = iter(range(len(timesteps)))

        def velocity(x, t):
            sigma = (t.double() / TRAIN_TIMESTEPS).clamp(min=1e-6).to(x)
            shape = (-1, *(1 for _ in x.shape[1:]))
            return (x - model(x, sigma, **extra_args)) / sigma.view(shape)

        def report(i, t, x, x0):
            if callback is not None:
                sigma = sigmas[next(steps)]
                callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": x0})

        mask, given = extra_args.get("denoise_mask"), getattr(model, "latent_image", None)
        pin = None if mask is None or given is None else lambda x: x * mask + given.to(x) * (1 - mask)
        if given is None or not (given if mask is None else given * mask).any():
            x = x / sigmas[0]  # nothing to start from but noise, which the official code does not scale
        return sample(velocity, x if pin is None else pin(x), schedule, solver, report, pin=pin)

    return comfy.samplers.KSAMPLER(run)


def official_sigmas(steps: int, shift: float, solver: str, denoise: float = 1.0) -> torch.Tensor:
    """Noise levels (steps + 1,) of the official grid; with `denoise` below 1 the last part of a longer one."""
    if denoise <= 0:
        return torch.FloatTensor([])
    total = max(steps, int(steps / denoise))
    return FlowSchedule.official(total, shift, solver).sigmas[-(steps + 1) :]
