"""What every condition asks of its VAE and of the clip's length."""

from ..errors import InputError
from ..shapes import ROPE_POSITIONS, nearest_frames, video_frames
from ..vae import WanVAE
from ..validate import either, whole_number

VAE_OF_CHANNELS = {16: "2.1", 48: "2.2"}


def require_vae(vae: WanVAE, channels: int, purpose: str) -> None:
    """Raises InputError unless the latents of `vae` have so many channels."""
    if vae.config.z_channels != channels:
        needed = f"the {VAE_OF_CHANNELS[channels]} VAE ({channels} channels) for {purpose}"
        raise InputError(f"the {vae.config.version} VAE", needed)


def clip_length(frames: int) -> int:
    """A frame count that the VAE can make; how long a clip a model can make is checked elsewhere.

    Raises:
        InputError: not 4n + 1; the nearest counts are named.
    """
    frames = whole_number("frames", frames, 1, video_frames(ROPE_POSITIONS))
    if frames % 4 != 1:
        nearest = either(nearest_frames(frames))
        raise InputError(f"{frames} frames", "a multiple of 4, plus 1", f"The nearest count is {nearest}")
    return frames
