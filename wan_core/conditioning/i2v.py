"""Image-to-video: the first frame, and the last one where given; as latents, and as CLIP sees them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..vae import WanVAE
from ..vision import ImageEncoder
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
    return given_frames(vae, frames, image, last_image)


def given_frames(vae: WanVAE, frames: int, image: Tensor | None, last_image: Tensor | None) -> Tensor:
    """4 mask channels (1 = given), then the latent of a clip that is grey but for its first and its last frame.

    Args:
        image, last_image: (3, H, W) in [-1, 1]; at least one of them.
    Returns:
        (1, 4 + z, T', h, w) float32.
    """
    latent = torch.cat(list(vae.encode_chunks(_clip(image, frames, last_image))), dim=2)  # (1, z, T', h, w)
    mask = frame_mask(frames, int(image is not None), int(last_image is not None)).to(latent.device)
    return torch.cat((mask.expand(-1, -1, -1, *latent.shape[3:]), latent), dim=1)


def image_tokens(encoder: ImageEncoder, images: Sequence[Tensor]) -> Tensor:
    """What CLIP sees in the first frame, or in the first and the last one.

    Args:
        images: (3, S, S) in [-1, 1], S pixels as the encoder wants them.
    Returns:
        (1, tokens of all images, dim): 257 tokens each, 1280 wide.
    Source: Wan2.1 wan/image2video.py, wan/first_last_frame2video.py.
    """
    return encoder(torch.stack(tuple(images)).to(encoder.device)).flatten(0, 1)[None]


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


def _clip(image: Tensor | None, frames: int, last_image: Tensor | None) -> Iterator[Tensor]:
    """The clip frame by frame, (1, 3, 1, H, W), grey where nothing is given."""
    grey = torch.zeros_like(next(given for given in (image, last_image) if given is not None))
    first, last = (grey if given is None else given for given in (image, last_image))
    for i in range(frames):
        frame = first if i == 0 else last if i == frames - 1 else grey
        yield frame[None, :, None]
