"""Whether MODELs, conditioning, latents and VAEs go together; an InputError names both where they do not."""

import torch

from ...wan_core.errors import InputError


def check_experts(high, low, positive, negative) -> None:
    """Two MODELs of one family (low may be None), and conditioning that both take."""
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
            f"high_noise is {_name(high)} and low_noise {_name(low)}",
            "two experts of one model",
            "Load both from the same release",
        )


def check_latent(model, latent: dict, conds: list) -> None:
    """A video latent of the MODEL's VAE, as long as what the conditioning joins to it."""
    samples, channels = latent["samples"], model.get_model_object("latent_format").latent_channels
    if samples.ndim != 5 or samples.shape[1] != channels:
        kind = "an image latent" if samples.ndim != 5 else f"a video latent with {samples.shape[1]} channels"
        raise InputError(
            f"{kind} {tuple(samples.shape)} for a model with {channels} latent channels",
            f"a video latent (batch, {channels}, T, h, w)",
            "Use Wan 2.2 Empty Latent with the family of the model, or its VAE",
        )
    for options in conds:
        vace = options.get("vace_frames") or [None]
        for name, condition in (("an image", options.get("concat_latent_image")), ("a VACE", vace[0])):
            if condition is not None and condition.ndim == 5 and condition.shape[2] != samples.shape[2]:
                raise InputError(
                    f"{name} condition of {condition.shape[2]} latent frames with a latent of {samples.shape[2]}",
                    "the same number",
                    "Connect the latent output of the node that makes the condition",
                )


def check_vae(vae, channels: int, model: str) -> None:
    """A VAE with as many latent channels as `model` takes."""
    found = getattr(vae, "latent_channels", None)
    if found != channels:
        right = "the Wan 2.1 VAE (16 channels)" if channels == 16 else "the Wan 2.2 VAE (48 channels)"
        raise InputError(f"a VAE with {found} latent channels for {model}", right, "Load that VAE instead")


def check_vae_latents(vae, latents: torch.Tensor) -> None:
    """Video latents (B, C, T, h, w) that the VAE can decode."""
    if latents.ndim != 5 or latents.shape[1] != vae.latent_channels:
        raise InputError(
            f"latents of shape {tuple(latents.shape)}",
            f"video latents with the VAE's {vae.latent_channels} channels",
            "The Wan 2.1 VAE goes with the 14B models, the Wan 2.2 VAE with the 5B",
        )


def _check_conditioning(model, conditioning) -> None:
    channels, vace = _traits(model)
    latent_channels = model.get_model_object("latent_format").latent_channels
    has_image = any("concat_latent_image" in options for _, options in conditioning)
    if has_image and channels == latent_channels:
        raise InputError(
            f"an image condition for a text-to-video model ({channels} input channels)",
            "an image-to-video model (36)",
            "Load the I2V experts, or take the image out",
        )
    if channels == 36 and not has_image:
        raise InputError(
            "an image-to-video model (36 input channels) without an image",
            "the Wan 2.2 Image to Video node",
            "Connect it between prompt and sampler, for positive and negative, or load the T2V experts",
        )
    if any("vace_frames" in options for _, options in conditioning) and not vace:
        raise InputError(
            f"a VACE condition for {_name(model)}, which has no VACE branch",
            "a VACE model",
            "Load the VACE experts, or take the VACE Condition node out",
        )


def _traits(model) -> tuple[int | None, bool]:
    """(input channels, whether it is VACE) of a Wan MODEL from any loader; None channels where it has no such layer."""
    transformer = model.model.diffusion_model
    weight = getattr(getattr(transformer, "patch_embedding", None), "weight", None)
    return None if weight is None else weight.shape[1], hasattr(transformer, "vace_patch_embedding")


def _name(model) -> str:
    channels, vace = _traits(model)
    return f"a {'VACE ' if vace else ''}model with {channels} input channels"
