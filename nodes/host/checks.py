"""Whether MODELs, conditioning, latents and VAEs go together; an InputError names both where they do not."""

import comfy.model_base
import torch

from ...wan_core.errors import InputError
from .conditions import check_conditions, check_latents
from .model import HostModelMixin

_WHICH_VAE = "The Wan 2.1 VAE goes with the 14B models, the Wan 2.2 VAE with the 5B"


def check_experts(high, low, positive, negative) -> None:
    """Two Wan MODELs of one family (low may be None), and conditioning that both take."""
    if high is None:
        raise InputError(
            "high_noise is empty: the loader has none in low_noise",
            "a MODEL",
            "Connect the loader's high_noise output to the sampler's high_noise",
        )
    for slot, model in (("high_noise", high), ("low_noise", low)):
        if model is not None:
            check_wan(model, slot)
            for conditioning in (positive, negative):
                _check_conditioning(model, conditioning)
    if low is not None and _family(high) != _family(low):
        raise InputError(
            f"high_noise is {_name(high)} and low_noise {_name(low)}",
            "two experts of one model",
            "Load both from the same release",
        )


def check_wan(model, slot: str) -> None:
    """A MODEL with a Wan transformer, of any loader."""
    if not hasattr(getattr(model.model.diffusion_model, "head", None), "modulation"):
        raise InputError(
            f"{slot} is a {type(model.model).__name__} MODEL", "a Wan MODEL", "Connect the experts of a Wan loader"
        )


def check_latent(model, latent: dict, conds: list) -> None:
    """A video latent of the MODEL's VAE, as long as what the conditioning joins to it."""
    samples, channels = latent["samples"], model.get_model_object("latent_format").latent_channels
    if samples.ndim != 5 or samples.shape[1] != channels:
        raise InputError(
            f"{_kind(samples)} {tuple(samples.shape)} for a model with {channels} latent channels",
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
    check_video_vae(vae)
    found = getattr(vae, "latent_channels", None)
    if found != channels:
        right = "the Wan 2.1 VAE (16 channels)" if channels == 16 else "the Wan 2.2 VAE (48 channels)"
        raise InputError(f"a VAE with {found} latent channels for {model}", right, "Load that VAE instead")


def check_video_vae(vae) -> None:
    """A VAE of videos; one of images would take each frame by itself, or the first one alone."""
    kind = {1: "a sound VAE", 2: "an image VAE"}.get(getattr(vae, "latent_dim", 3))
    if kind is not None:
        raise InputError(kind, "a Wan VAE", _WHICH_VAE)


def check_vae_latents(vae, latents: torch.Tensor) -> None:
    """Video latents (B, C, T, h, w) that the VAE can decode."""
    check_video_vae(vae)
    if latents.ndim != 5 or latents.shape[1] != vae.latent_channels:
        raise InputError(
            f"{_kind(latents)}: latents of shape {tuple(latents.shape)}",
            f"video latents with the VAE's {vae.latent_channels} channels",
            _WHICH_VAE,
        )


def _kind(latents) -> str:
    if latents.ndim == 5:
        return f"a video latent with {latents.shape[1]} channels"
    return {3: "an audio latent", 4: "an image latent"}.get(latents.ndim, "another kind of latent")


def _check_conditioning(model, conditioning) -> None:
    given = {key for _, options in conditioning for key, value in options.items() if value is not None}
    channels, latent_channels = _channels(model), model.get_model_object("latent_format").latent_channels
    if "concat_latent_image" in given and channels == latent_channels:
        raise InputError(
            f"an image condition for a text-to-video model ({channels} input channels)",
            "a model with channels for it, such as image-to-video (36)",
            "Load the model that the condition is for, or take the condition out",
        )
    if channels == 36 and _is_plain(model) and not given & _images(model):
        raise InputError(
            "an image-to-video model (36 input channels) without an image",
            "the Wan 2.2 Image to Video node",
            "Connect it between prompt and sampler, for positive and negative, or load the T2V experts",
        )
    if "vace_frames" in given and not hasattr(model.model.diffusion_model, "vace_patch_embedding"):
        raise InputError(
            f"a VACE condition for {_name(model)}, which has no VACE branch",
            "a VACE model",
            "Load the VACE experts, or take the VACE Condition node out",
        )
    for _, options in conditioning:
        if isinstance(model.model, HostModelMixin):
            check_conditions(model.model.diffusion_model.config, options)
        else:  # a native MODEL decides for itself; image-to-video of Wan2.1 takes a part of the channels
            takes_all = _is_plain(model) and channels is not None and not model.model.image_to_video
            check_latents(options, latent_channels, channels - latent_channels if takes_all else None)


def _channels(model) -> int | None:
    """Input channels of a Wan MODEL from any loader; None where it has no such layer."""
    weight = getattr(getattr(model.model.diffusion_model, "patch_embedding", None), "weight", None)
    return None if weight is None else weight.shape[1]


def _is_plain(model) -> bool:
    """Whether nothing but images fills the channels beside the noise; other families make some of them themselves."""
    return type(model.model) is comfy.model_base.WAN21 or isinstance(model.model, HostModelMixin)


def _images(model) -> set[str]:
    """The keys under which a plain image-to-video MODEL finds its image."""
    has_clip_branch = getattr(model.model.diffusion_model, "img_emb", None) is not None
    return {"concat_latent_image"} | ({"clip_vision_output"} if has_clip_branch else set())


def _native_class(model) -> type:
    """The class of ComfyUI that a MODEL is of; ours are of the same as the native one of that family."""
    return next(base for base in type(model.model).__mro__ if base.__module__ == comfy.model_base.__name__)


def _family(model) -> tuple:
    return _native_class(model), _channels(model)


def _name(model) -> str:
    family = _native_class(model).__name__.partition("_")[2].replace("Vace", "VACE")
    return f"a {family + ' ' if family else ''}model with {_channels(model)} input channels"
