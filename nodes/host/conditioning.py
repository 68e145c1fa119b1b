"""Latents and conditioning values of the conditioning nodes: sizes, grey frames, masks."""

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import node_helpers
import torch

from ...wan_core.conditioning import frame_mask, vcu
from ...wan_core.config import PRESETS, Preset
from ...wan_core.errors import InputError
from ...wan_core.media.resize import fit_on_white
from ...wan_core.shapes import LONGEST_SEQUENCE, check_shape
from .checks import check_vae
from .vae import RawVAE

GREY = 0.5  # frames that are not given, in [0, 1]


def empty_latent(preset: Preset, width: int, height: int, length: int, batch_size: int = 1) -> torch.Tensor:
    """Zeros (batch, channels, T', h, w) where ComfyUI keeps latents.

    Raises:
        InputError: a size or length that the model cannot make; the nearest one is named.
    """
    shape = check_shape(length, height, width, preset.vae, preset.dit)
    if batch_size * shape.tokens(preset.vae, preset.dit) > LONGEST_SEQUENCE:
        raise InputError(
            f"{batch_size} clips of {length} frames of {width}×{height}",
            "less in one run",
            "Make fewer clips at a time",
        )
    return torch.zeros(
        batch_size, *shape.latent(preset.vae), dtype=torch.float32, device=comfy.model_management.intermediate_device()
    )


def image_to_video(vae, width: int, height: int, length: int, start, end=None) -> tuple[dict, torch.Tensor]:
    """(conditioning values, empty latent) of an I2V-A14B clip with the given first frames, and last ones where given.

    Args:
        start, end: images (n, H, W, C) in [0, 1], scaled to cover the size and cropped.
    """
    preset = PRESETS["i2v-a14b"]
    check_vae(vae, preset.vae.z_channels, "image-to-video A14B")
    latent = empty_latent(preset, width, height, length)
    video = torch.full((length, height, width, 3), GREY, dtype=torch.float32)  # (T, H, W, C)
    start = scaled(start[:length, ..., :3], width, height)
    video[: len(start)] = start
    last = 0
    if end is not None:
        end = scaled(end[-length:, ..., :3], width, height)
        last = len(end)
        video[-last:] = end
    mask = 1 - frame_mask(length, len(start), last).repeat(1, 1, 1, *latent.shape[3:])  # ComfyUI's is 1 where free
    return {"concat_latent_image": vae.encode(video), "concat_mask": mask}, latent


def text_and_image_to_video(vae, width: int, height: int, length: int, start=None) -> dict:
    """The LATENT of a TI2V-5B clip; with images (n, H, W, C) in [0, 1] it starts from them."""
    preset = PRESETS["ti2v-5b"]
    check_vae(vae, preset.vae.z_channels, "TI2V-5B")
    latent = empty_latent(preset, width, height, length)
    if start is None:
        return {"samples": latent}
    given = vae.encode(scaled(start[:length, ..., :3], width, height))
    mask = torch.ones(1, 1, *latent.shape[2:], dtype=torch.float32)
    mask[:, :, : given.shape[2]] = 0
    # Zero for the model is not zero for the VAE: the free frames have to be nothing after normalisation.
    latent = comfy.latent_formats.Wan22().process_out(latent)
    latent[:, :, : given.shape[2]] = given
    return {"samples": latent, "noise_mask": mask}


def vace(
    vae, width: int, height: int, length: int, video=None, mask=None, references=None, strength: float = 1.0
) -> tuple[dict, torch.Tensor, int]:
    """(conditioning values, empty latent, latent frames in front that hold references) of a VACE clip.

    Args:
        video: frames (T, H, W, C) in [0, 1], scaled and cropped; missing ones are grey.
        mask: (T, H, W), 1 where the model generates; missing ones are 1.
        references: images (n, H, W, C), fitted on white.
    """
    preset = PRESETS["vace-a14b"]
    check_vae(vae, preset.vae.z_channels, "VACE")
    latent = empty_latent(preset, width, height, length)
    images = [] if references is None else references[..., :3].movedim(-1, 1) * 2 - 1
    images = [fit_on_white(image, height, width) for image in images]
    if video is not None:
        video = padded(scaled(video[:length, ..., :3], width, height), length, GREY).movedim(-1, 0) * 2 - 1
    if mask is not None:
        mask = mask.reshape(-1, *mask.shape[-2:])[:length, ..., None]
        mask = padded(scaled(mask, width, height), length, 1.0).movedim(-1, 0)
    context = vcu(RawVAE(vae), video, mask, images, frames=length, height=height, width=width)  # (1, 96, R + T', h, w)
    values = {"vace_frames": [context[:, :32]], "vace_mask": [context[:, 32:]], "vace_strength": [strength]}
    front = latent.new_zeros(*latent.shape[:2], len(images), *latent.shape[3:])
    return values, torch.cat((front, latent), dim=2), len(images)


def with_values(positive, negative, values: dict, append: bool = False) -> list:
    """Both CONDITIONINGs with the values; `append` puts lists behind those that are there."""
    return [node_helpers.conditioning_set_values(c, values, append=append) for c in (positive, negative)]


def scaled(images: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Images (T, H, W, C) scaled to cover the size and cropped, as the native Wan nodes do it."""
    channels_first = images.movedim(-1, 1)
    return comfy.utils.common_upscale(channels_first, width, height, "bilinear", "center").movedim(1, -1)


def padded(frames: torch.Tensor, length: int, value: float) -> torch.Tensor:
    """Frames (T, H, W, C) followed by constant ones up to `length`."""
    missing = length - len(frames)
    return torch.cat((frames, frames.new_full((missing, *frames.shape[1:]), value))) if missing > 0 else frames
