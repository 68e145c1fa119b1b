"""What the sampling nodes do: check the parts, make guider, sampler and sigmas, run."""

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ...wan_core.errors import InputError
from ...wan_core.flow.schedule import MAX_SHIFT, MIN_SHIFT
from ...wan_core.validate import real_number
from .guider import HandoffGuider
from .preview import RunProgress
from .solvers import official_sampler, official_sigmas

OFFICIAL = "official "
LONGEST_GRID = 10_000


def make_guider(high, low, positive, negative, cfg_high, cfg_low, boundary) -> HandoffGuider:
    """A guider for both MODELs.

    Raises:
        InputError: experts of different families, a conditioning that the model does not take, numbers out of range.
    """
    if high is None:
        raise InputError(
            "high_noise is empty: the loader has none in low_noise",
            "a MODEL",
            "Connect the loader's high_noise output to the sampler's high_noise",
        )
    for model in (high, low):
        if model is not None:
            for conditioning in (positive, negative):
                _check_conditioning(model, conditioning)
    if low is not None and _traits(high) != _traits(low):
        raise InputError(
            f"high_noise is {_called(high)} and low_noise {_called(low)}",
            "two experts of one model",
            "Load both from the same release",
        )
    cfg_high, cfg_low = (
        real_number(name, cfg, 0, 1000) for name, cfg in (("cfg_high", cfg_high), ("cfg_low", cfg_low))
    )
    guider = HandoffGuider(high, low, real_number("boundary", boundary, 0, 1), cfg_high, cfg_low)
    guider.set_conds(positive, negative)
    return guider


def make_sampler(solver: str):
    """A SAMPLER, official or ComfyUI's."""
    if solver.startswith(OFFICIAL):
        return official_sampler(solver.removeprefix(OFFICIAL))
    return comfy.samplers.sampler_object(solver)


def make_sigmas(model, steps: int, shift: float, solver: str, schedule: str, denoise: float) -> torch.Tensor:
    """Noise levels (steps + 1,), the official grid or ComfyUI's under the given shift.

    With `denoise` below 1 they are the end of a run of steps / denoise, of which 10,000 are the most.
    """
    denoise, shift = real_number("denoise", denoise, 0, 1), real_number("shift", shift, MIN_SHIFT, MAX_SHIFT)
    if schedule == "official":
        grid = "dpmpp_2m" if solver == OFFICIAL + "dpmpp_2m" else "unipc"
        return official_sigmas(steps, shift, grid, denoise)
    if denoise <= 0:
        return torch.FloatTensor([])
    sampling = type(model.get_model_object("model_sampling"))(model.model.model_config)
    sampling.set_parameters(shift=shift, multiplier=sampling.multiplier)
    total = min(max(steps, int(steps / denoise)), LONGEST_GRID)
    drop = solver in comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
    sigmas = comfy.samplers.calculate_sigmas(sampling, schedule, total + drop)
    if drop:
        sigmas = torch.cat((sigmas[:-2], sigmas[-1:]))
    return sigmas[-(steps + 1) :]


def sample(
    guider: HandoffGuider, sampler, sigmas: torch.Tensor, latent: dict, seed: int, node_id=None, add_noise=True
) -> dict:
    """One run over `sigmas`; the node `node_id` shows which expert is at work.

    Without `add_noise` the latent is one that an earlier run has left in the middle. Without a step it is returned as it is.

    Raises:
        InputError: a latent of another VAE, or an image latent.
    """
    model = guider.model_patcher
    _check_latent(model, latent)
    for conditioning in guider.original_conds.values():
        _check_length(conditioning, latent["samples"])
    if len(sigmas) < 2:
        return latent
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = (
        comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
        if add_noise
        else torch.zeros_like(samples, device="cpu")
    )
    if node_id is not None:
        guider.watch = RunProgress(node_id)
    done = guider.sample(
        noise,
        samples,
        sampler,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, max(1, len(sigmas) - 1)),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": done.to(comfy.model_management.intermediate_device())}


def _traits(model) -> tuple:
    """(input channels or None, whether it is VACE) of a Wan MODEL from any loader."""
    transformer = model.model.diffusion_model
    weight = getattr(getattr(transformer, "patch_embedding", None), "weight", None)
    return None if weight is None else weight.shape[1], hasattr(transformer, "vace_patch_embedding")


def _called(model) -> str:
    channels, vace = _traits(model)
    return f"a {'VACE ' if vace else ''}model with {channels} input channels"


def _check_conditioning(model, conditioning) -> None:
    channels, vace = _traits(model)
    formats = model.get_model_object("latent_format").latent_channels
    given = any("concat_latent_image" in options for _, options in conditioning)
    if given and channels == formats:
        raise InputError(
            f"an image condition for a text-to-video model ({channels} input channels)",
            "an image-to-video model (36)",
            "Load the I2V experts, or take the image out",
        )
    if channels == 36 and not given:
        raise InputError(
            "an image-to-video model (36 input channels) without an image",
            "the Wan 2.2 Image to Video node",
            "Connect it between prompt and sampler, for positive and negative, or load the T2V experts",
        )
    if any("vace_frames" in options for _, options in conditioning) and not vace:
        raise InputError(
            f"a VACE condition for {_called(model)}, which has no VACE branch",
            "a VACE model",
            "Load the VACE experts, or take the VACE Condition node out",
        )


def _check_length(conditioning, samples) -> None:
    """What is joined to the latent has to be as long as the latent."""
    for options in conditioning:
        for name, given in (
            ("image", options.get("concat_latent_image")),
            ("VACE", (options.get("vace_frames") or [None])[0]),
        ):
            if given is not None and given.ndim == 5 and given.shape[2] != samples.shape[2]:
                raise InputError(
                    f"{'an' if name == 'image' else 'a'} {name} condition of {given.shape[2]} latent frames with a latent of {samples.shape[2]}",
                    "the same number",
                    "Connect the latent output of the node that makes the condition",
                )


def _check_latent(model, latent: dict) -> None:
    samples, channels = latent["samples"], model.get_model_object("latent_format").latent_channels
    if samples.ndim != 5 or samples.shape[1] != channels:
        kind = "an image latent" if samples.ndim != 5 else f"a video latent with {samples.shape[1]} channels"
        raise InputError(
            f"{kind} {tuple(samples.shape)} for a model with {channels} latent channels",
            f"a video latent (batch, {channels}, T, h, w)",
            "Use Wan 2.2 Empty Latent with the family of the model, or its VAE",
        )
