"""What the sampling nodes do: make guider, sampler and sigmas, and run."""

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ...wan_core.config import TRAIN_TIMESTEPS
from ...wan_core.errors import InputError
from ...wan_core.flow import FlowSchedule
from ...wan_core.flow import sample as integrate
from ...wan_core.validate import real_number
from .checks import check_experts, check_latent
from .guider import HandoffGuider
from .preview import RunProgress
from .shift import has_shift, ignored_shift, run_shift, sampling_at

OFFICIAL = "official"  # the schedule, and the first word of our solvers' names
MAX_GRID = 10_000  # steps of a ComfyUI schedule of which a low denoise keeps the end


def make_guider(
    high,
    low,
    positive,
    negative,
    cfg_high: float,
    cfg_low: float,
    boundary: float,
    node_id: str | None = None,
    shift: float | None = None,
) -> HandoffGuider:
    """A guider for both MODELs; the node `node_id` shows its runs.

    What is given in percent of a run follows `shift`, 0 being that of `high`; without one, that of each MODEL.

    Raises:
        InputError: experts of different families, a conditioning that the model does not take, numbers out of range.
    """
    check_experts(high, low, positive, negative)
    ignored = None
    if shift is not None:
        shift = run_shift(high, shift)
        models = {"high_noise": high} | ({} if low is None else {"low_noise": low})
        ignored = next(filter(None, [ignored_shift(model, shift, slot) for slot, model in models.items()]), None)
    guider = HandoffGuider(
        high,
        low,
        cfg_high=real_number("cfg_high", cfg_high, 0, 1000),
        cfg_low=real_number("cfg_low", cfg_low, 0, 1000),
        boundary=real_number("boundary", boundary, 0, 1),
        progress=None if node_id is None else RunProgress(node_id, ignored),
        shift=shift,
    )
    guider.set_conds(positive, negative)
    return guider


def make_sampler(solver: str) -> comfy.samplers.KSAMPLER:
    """The SAMPLER of a name: "official unipc" and the like, or ComfyUI's."""
    if solver.startswith(f"{OFFICIAL} "):
        return official_sampler(solver.removeprefix(f"{OFFICIAL} "))
    return comfy.samplers.sampler_object(solver)


def make_sigmas(model, steps: int, shift: float, solver: str, schedule: str, denoise: float) -> torch.Tensor:
    """Noise levels (steps + 1,), the official grid or ComfyUI's under the given shift; 0 is the MODEL's.

    With `denoise` below 1 they are the end of a run of steps / denoise, of which 10,000 are the most.

    Raises:
        InputError: numbers out of range, or the official ones for a family that has its own.
    """
    denoise, shift = real_number("denoise", denoise, 0, 1), run_shift(model, shift)
    if not has_shift(model) and (schedule == OFFICIAL or solver.startswith(f"{OFFICIAL} ")):
        raise InputError(
            "the official solver or schedule for FlowRVS, which has noise levels of its own",
            "ComfyUI's",
            "Choose the solver euler and the schedule simple",
        )
    if schedule == OFFICIAL:
        return official_sigmas(steps, shift, "dpmpp_2m" if solver == f"{OFFICIAL} dpmpp_2m" else "unipc", denoise)
    if denoise <= 0:
        return torch.FloatTensor([])
    total = min(max(steps, int(steps / denoise)), MAX_GRID)
    drop = solver in comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
    sigmas = comfy.samplers.calculate_sigmas(sampling_at(model, shift), schedule, total + drop)
    if drop:
        sigmas = torch.cat((sigmas[:-2], sigmas[-1:]))
    return sigmas[-(steps + 1) :]


def official_sigmas(steps: int, shift: float, solver: str, denoise: float = 1.0) -> torch.Tensor:
    """Noise levels (steps + 1,) of the official grid; with `denoise` below 1 the last part of a longer one."""
    if denoise <= 0:
        return torch.FloatTensor([])
    total = max(steps, int(steps / denoise))
    return FlowSchedule.official(total, shift, solver).sigmas[-(steps + 1) :]


def official_sampler(solver: str) -> comfy.samplers.KSAMPLER:
    """A SAMPLER that takes the official step."""
    return comfy.samplers.KSAMPLER(sample_official, extra_options={"solver": solver})


def sample_official(model, x, sigmas, extra_args=None, callback=None, disable=None, solver="unipc") -> torch.Tensor:
    """A sampler function of ComfyUI that tells the model whole timesteps, as the official code does."""
    timesteps = (sigmas[:-1].double().cpu() * TRAIN_TIMESTEPS + 1e-4).long()
    extra_args = with_levels(extra_args or {}, torch.cat((told(timesteps).to(sigmas), sigmas.new_zeros(1))))

    def velocity(x, t):
        sigma = told(t).to(x)
        return (x - model(x, sigma, **extra_args)) / sigma.view(-1, *(1 for _ in x.shape[1:]))

    def on_step(i, t, x, x0):
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})

    def constrain(x):
        return x * mask + latent.to(x) * (1 - mask)

    mask, latent = extra_args.get("denoise_mask"), getattr(model, "latent_image", None)
    if latent is None or not (latent if mask is None else latent * mask).any():
        x = x / sigmas[0]  # nothing to start from but noise, which the official code does not scale
    pin = None if mask is None or latent is None else constrain
    schedule = FlowSchedule(sigmas.float().cpu(), timesteps)
    return integrate(velocity, x if pin is None else pin(x), schedule, solver, on_step, pin=pin)


def told(timesteps: torch.Tensor) -> torch.Tensor:
    """The noise levels that the model is told for whole timesteps."""
    return (timesteps.double() / TRAIN_TIMESTEPS).clamp(min=1e-6)


def with_levels(extra_args: dict, sigmas: torch.Tensor) -> dict:
    """The arguments of a sampler function with other noise levels for what looks up the step by sigma."""
    options = extra_args.get("model_options", {})
    transformer_options = {**options.get("transformer_options", {}), "sample_sigmas": sigmas}
    return {**extra_args, "model_options": {**options, "transformer_options": transformer_options}}


def sample(
    guider: HandoffGuider,
    sampler: comfy.samplers.KSAMPLER,
    sigmas: torch.Tensor,
    latent: dict,
    seed: int,
    add_noise: bool = True,
) -> dict:
    """The LATENT after one run over `sigmas`; the given one where there is no step to do.

    Without `add_noise` the latent is one that an earlier run has left in the middle.

    Raises:
        InputError: a latent of another VAE or of another length, or an image latent.
    """
    model = guider.model_patcher
    check_latent(model, latent, [options for conds in guider.original_conds.values() for options in conds])
    if len(sigmas) < 2:
        return latent
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    if add_noise:
        noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    else:
        noise = torch.zeros_like(samples, device="cpu")
    result = guider.sample(
        noise,
        samples,
        sampler,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": result.to(comfy.model_management.intermediate_device())}
