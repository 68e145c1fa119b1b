"""Image-to-video A14B: the first frame, and the last one where given."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import InputError
from ..vae import WanVAE
from .checks import clip_length, require_vae


def image_to_video(vae: WanVAE, image: Tensor, frames: int, last_image: Tensor | None = None) -> Tensor:
    """Condition of an image-to-video model: 4 mask channels (1 = given), then 16 latent channels.

    The frames that are not given are mid grey. Works through the clip in chunks.

    Args:
        image: (3, H, W) in [-1, 1], the first frame.
        frames: length of the clip, 4n + 1.
        last_image: (3, H, W) in [-1, 1], the last frame.
    Returns:
        y (1, 20, T', h, w) float32.
    Raises:
        InputError: images of different sizes, a VAE without 16 channels.
    Source: Wan2.2 wan/image2video.py; Wan2.1 wan/first_last_frame2video.py.
    """
    require_vae(vae, 16, "image-to-video A14B")
    frames = clip_length(frames)
    if last_image is not None and (last_image.shape != image.shape or frames < 2):
        raise InputError(
            f"first image {tuple(image.shape)}, last image {tuple(last_image.shape)}, {frames} frames",
            "images of one size and at least 5 frames",
        )
    latent = torch.cat(list(vae.encode_chunks(_clip(image, frames, last_image))), dim=2)  # (1, 16, T', h, w)
    mask = frame_mask(frames, 1, 0 if last_image is None else 1).to(latent.device)
    return torch.cat((mask.expand(-1, -1, -1, *latent.shape[3:]), latent), dim=1)


def frame_mask(frames: int, first: int = 1, last: int = 0) -> Tensor:
    """The mask channels of image-to-video: which frames of a clip are given.

    Each latent frame has one channel for each of its 4 frames; the first frame of the clip fills all 4.

    Args:
        frames: length of the clip, 4n + 1.
        first, last: how many frames at the beginning and at the end are given.
    Returns:
        (1, 4, T', 1, 1) float32, 1 = given; to be expanded to a latent's height and width.
    """
    given = torch.zeros(frames + 3, dtype=torch.float32, device="cpu")
    given[: first + 3 if first else 0] = 1
    given[frames + 3 - last :] = 1
    return given.view(1, -1, 4, 1, 1).transpose(1, 2)


def _clip(image: Tensor, frames: int, last_image: Tensor | None) -> Iterator[Tensor]:
    """The clip frame by frame, (1, 3, 1, H, W), grey where nothing is given."""
    grey = image.new_zeros(1, 3, 1, *image.shape[1:])
    last = grey if last_image is None else last_image[None, :, None]
    yield image[None, :, None]
    for i in range(1, frames):
        yield last if i == frames - 1 else grey
