"""What native Wan nodes put into the conditioning, and which of it our transformers take; the rest is refused.

A native MODEL decides for itself.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...wan_core.config import DiTConfig
from ...wan_core.errors import InputError


class Condition(NamedTuple):
    """A value in the conditioning.

    Attributes:
        what: it is.
        models: that take it.
        taken: whether a transformer of ours does.
    """

    what: str
    models: str
    taken: Callable[[DiTConfig], bool] = lambda config: False


def _takes_images(config: DiTConfig) -> bool:
    """Image-to-video of Wan2.2 takes no image of CLIP Vision, but people connect one to it as to that of Wan2.1."""
    return config.in_channels > config.out_channels


def _takes_contexts(config: DiTConfig) -> bool:
    return config.in_channels == config.out_channels and not config.vace_layers


def _takes_references_behind(config: DiTConfig) -> bool:
    """Phantom is a text-to-video model: its references go through the same channels as the noise."""
    return config.in_channels == 16 and not config.vace_layers


_POSE = Condition("a pose video", "Animate or SCAIL")
_MASK = Condition("a mask of persons", "SCAIL-2")
# Key → what it is. What is not here is ComfyUI's own, or belongs to one that is.
CONDITIONS: Mapping[str, Condition] = {
    "concat_latent_image": Condition("an image condition", "image-to-video", _takes_images),
    "clip_vision_output": Condition("an image of CLIP Vision", "image-to-video", _takes_images),
    "clip_vision_output_ref": Condition("a second image of CLIP Vision", "WanDancer"),
    "clip_vision_output_pose": _POSE,
    "vace_frames": Condition("a VACE condition", "VACE", lambda config: bool(config.vace_layers)),
    "time_dim_concat": Condition("a Phantom condition", "Phantom", _takes_references_behind),
    "context_latents": Condition("a Bernini condition", "Bernini-R", _takes_contexts),
    "reference_latents": Condition("a reference image", "Fun-Control", lambda config: config.reference_channels > 0),
    "camera_conditions": Condition("a camera path", "Fun-Camera"),
    "audio_embed": Condition("sound", "S2V, HuMo or WanDancer"),
    "control_video": Condition("a control video", "S2V"),
    "reference_motion": Condition("earlier motion", "S2V"),
    "pose_video_latent": _POSE,
    "cross_attn_pose": _POSE,
    "face_video_pixels": Condition("a face video", "Animate"),
    "driving_mask_28ch": _MASK,
    "ref_mask_28ch": _MASK,
    "control": Condition("a ControlNet", "another architecture"),
}


# What ComfyUI passes along that has had its effect before: the mask of a given frame, in the timesteps.
_DONE = ("denoise_mask",)
_OURS = "for a MODEL of Load Wan 2.2 Experts, which would ignore it"
_FIX = "Take it out, or load that model. The samplers take the MODEL of Load Diffusion Model too"
MASK = 4  # channels, in front of those of an image condition
# Conditions that are latents, or lists of them → how many latents are stacked in their channels.
_LATENTS: Mapping[str, int] = {"context_latents": 1, "reference_latents": 1, "time_dim_concat": 1, "vace_frames": 2}


def check_conditions(config: DiTConfig, given: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: a value in the conditioning that a transformer of these sizes does not take, or of another size.
    """
    for key, condition in CONDITIONS.items():
        if given.get(key) is not None and not condition.taken(config):
            raise InputError(
                f"{condition.what} ({key}) {_OURS}: it has {config.in_channels} input channels",
                f"a model that it is for: {condition.models}",
                _FIX,
            )
    check_latents(given, config.out_channels, config.in_channels - config.out_channels)


def check_latents(given: Mapping[str, Any], channels: int, joined: int | None) -> None:
    """
    Args:
        channels: of the model's latents.
        joined: channels that an image condition and its mask fill; None where the model takes a part of them.
    Raises:
        InputError: latents in the conditioning of another VAE, or of the node for another model.
    """
    for key, stacked in _LATENTS.items():
        value = given.get(key)
        for latent in value if isinstance(value, list | tuple) else [value]:
            if latent is not None and latent.shape[1] != stacked * channels:
                raise InputError(
                    f"{CONDITIONS[key].what} ({key}) with {latent.shape[1] // stacked} latent channels for a model "
                    f"with {channels}",
                    "a condition made with the VAE of the model",
                    "Connect that VAE to the node that makes the condition",
                )
    image = given.get("concat_latent_image")
    if image is not None and joined is not None and image.shape[1] not in (joined, joined - MASK):
        raise InputError(
            f"an image condition of {image.shape[1]} channels for a model with {channels + joined} input channels",
            f"one of {joined // channels * channels} channels",
            "Make it with the node for this model and with its VAE; docs/families.md lists the nodes",
        )


def check_others(inputs: Mapping[str, object]) -> None:
    """
    Raises:
        InputError: an input of a forward pass that none of our transformers has.
    """
    given = [name for name, value in inputs.items() if value is not None and name not in _DONE]
    if given:
        raise InputError(f"{' and '.join(given)} {_OURS}", "a model that it is for", _FIX)
