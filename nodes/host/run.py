"""What the sampling nodes do: check the parts, make guider, sampler and sigmas, run."""

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ...wan_core.errors import InputError
from ...wan_core.shapes import real_number
from .guider import HandoffGuider
from .preview import Watch
from .sampler import official_sampler, official_sigmas

OFFICIAL = "official "


def make_guider(high, low, positive, negative, cfg_high, cfg_low, boundary) -> HandoffGuider:
    """A guider for both MODELs.

    Raises:
        InputError: experts of different families, or a conditioning that the model does not take.
    """
    if low is not None and _channels(high) != _channels(low):
        raise InputError(
            f"high_noise takes {_channels(high)} input channels and low_noise {_channels(low)}", "two experts of one model",
            "Load both from the same release",
        )  # fmt: skip
    _check_conditioning(high, positive)
    guider = HandoffGuider(high, low, real_number("boundary", boundary, 0, 1), cfg_high, cfg_low)
    guider.set_conds(positive, negative)
    return guider


def make_sampler(solver: str):
    """A SAMPLER, official or ComfyUI's."""
    if solver.startswith(OFFICIAL):
        return official_sampler(solver.removeprefix(OFFICIAL))
    return comfy.samplers.sampler_object(solver)


def make_sigmas(model, steps: int, shift: float, solver: str, schedule: str, denoise: float) -> torch.Tensor:
    """Noise levels (steps + 1,), the official grid or ComfyUI's under the given shift."""
    if schedule == "official":
        grid = "dpmpp_2m" if solver == OFFICIAL + "dpmpp_2m" else "unipc"
        return official_sigmas(steps, shift, grid, denoise)
    if denoise <= 0:
        return torch.FloatTensor([])
    sampling = type(model.get_model_object("model_sampling"))(model.model.model_config)
    sampling.set_parameters(shift=shift, multiplier=sampling.multiplier)
    total = max(steps, int(steps / denoise))
    drop = solver in comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
    sigmas = comfy.samplers.calculate_sigmas(sampling, schedule, total + drop)
    if drop:
        sigmas = torch.cat((sigmas[:-2], sigmas[-1:]))
    return sigmas[-(steps + 1) :]


def sample(guider: HandoffGuider, sampler, sigmas: torch.Tensor, latent: dict, seed: int, node_id=None) -> dict:
    """One run over `sigmas`; the node `node_id` shows which expert is at work.

    Raises:
        InputError: a latent of another VAE, or an image latent.
    """
    model = guider.model_patcher
    _check_latent(model, latent)
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    if node_id is not None:
        guider.watch = Watch(node_id)
    done = guider.sample(
        noise, samples, sampler, sigmas, denoise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, max(1, len(sigmas) - 1)),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=seed,
    )  # fmt: skip
    return {**latent, "samples": done.to(comfy.model_management.intermediate_device())}


def _channels(model) -> int | None:
    """Input channels of a Wan MODEL from any loader."""
    weight = getattr(getattr(model.model.diffusion_model, "patch_embedding", None), "weight", None)
    return None if weight is None else weight.shape[1]


def _check_conditioning(model, positive) -> None:
    channels, formats = _channels(model), model.get_model_object("latent_format").latent_channels
    given = any("concat_latent_image" in options for _, options in positive)
    if given and channels == formats:
        raise InputError(
            f"an image condition for a text-to-video model ({channels} input channels)", "an image-to-video model (36)",
            "Load the I2V experts, or take the image out",
        )  # fmt: skip
    if channels == 36 and not given:
        raise InputError(
            "an image-to-video model (36 input channels) without an image", "the Wan 2.2 Image to Video node",
            "Connect it between prompt and sampler, or load the T2V experts",
        )  # fmt: skip


def _check_latent(model, latent: dict) -> None:
    samples, channels = latent["samples"], model.get_model_object("latent_format").latent_channels
    if samples.ndim != 5 or samples.shape[1] != channels:
        kind = "an image latent" if samples.ndim != 5 else f"a video latent with {samples.shape[1]} channels"
        raise InputError(
            f"{kind} {tuple(samples.shape)} for a model with {channels} latent channels",
            f"a video latent (batch, {channels}, T, h, w)",
            "Use Wan 2.2 Empty Latent with the family of the model, or its VAE",
        )  # fmt: skip
