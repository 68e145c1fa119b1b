"""Images, first frames and video-condition units, encoded for the models that take them."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import InputError
from ..shapes import ROPE_POSITIONS, latent_frames, nearest_frames, video_frames
from ..vae import WanVAE
from ..validate import either, whole_number


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
    if vae.config.z_channels != 16:
        raise InputError(f"the {vae.config.version} VAE", "the 2.1 VAE (16 channels) for image-to-video A14B")
    frames = _clip_length(frames)
    if last_image is not None and (last_image.shape != image.shape or frames < 2):
        raise InputError(
            f"first image {tuple(image.shape)}, last image {tuple(last_image.shape)}, {frames} frames",
            "images of one size and at least 5 frames",
        )

    def chunks() -> Iterator[Tensor]:
        yield image[None, :, None]
        grey = image.new_zeros(1, 3, 1, *image.shape[1:])
        for _ in range(frames - 1 if last_image is None else frames - 2):
            yield grey
        if last_image is not None:
            yield last_image[None, :, None]

    latent = torch.cat(list(vae.encode_chunks(chunks())), dim=2)
    given = torch.zeros(frames, device=latent.device)
    given[0] = 1
    given[-1] = 1 if last_image is not None else given[-1]
    given = torch.cat((given[:1].expand(4), given[1:])).view(-1, 4)  # the first frame stands for four
    mask = given.T[None, :, :, None, None].expand(1, 4, *latent.shape[2:])
    return torch.cat((mask, latent), dim=1)


def first_frame(vae: WanVAE, image: Tensor) -> Tensor:
    """The latent of a TI2V-5B clip's first frame.

    Args:
        image: (3, H, W) in [-1, 1].
    Returns:
        z (1, 48, 1, h, w) float32.
    Raises:
        InputError: a VAE without 48 channels.
    """
    if vae.config.z_channels != 48:
        raise InputError(f"the {vae.config.version} VAE", "the 2.2 VAE (48 channels) for TI2V-5B")
    return vae.encode(image[None, :, None])


class FirstFrameMask:
    """TI2V-5B image-to-video: the first latent frame is given, its tokens are at timestep 0, and it is put back after
    every step.

    Args:
        z: (1, 48, 1, h, w).
        patch: the transformer's patch size.
    Source: Wan2.2 wan/textimage2video.py i2v.
    """

    def __init__(self, z: Tensor, patch: tuple[int, int, int] = (1, 2, 2)):
        self.z, self.patch = z, patch

    def constrain(self, x: Tensor) -> Tensor:
        """x (B, 48, T, h, w) with the given frame in its place."""
        return torch.cat((self.z.to(x).expand(len(x), -1, -1, -1, -1), x[:, :, 1:]), dim=2)

    def timesteps(self, t: Tensor, x: Tensor) -> Tensor:
        """(B,) → (B, L): 0 for the tokens of the given frame, t for the others."""
        frame = (x.shape[3] // self.patch[1]) * (x.shape[4] // self.patch[2])
        tokens = t[:, None].repeat(1, frame * x.shape[2])
        tokens[:, :frame] = 0
        return tokens


def vcu(
    vae: WanVAE,
    video: Tensor | None = None,
    mask: Tensor | None = None,
    references: Sequence[Tensor] = (),
    *,
    frames: int,
    height: int,
    width: int,
) -> Tensor:
    """Video-condition unit of VACE: 16 inactive + 16 reactive + 64 mask channels, references in front.

    Args:
        video: (3, T, H, W) in [-1, 1]; None: nothing is given (grey).
        mask: (1, T, H, W) in [0, 1], 1 = generate, 0 = keep; None: generate everything.
        references: images (3, H, W) in [-1, 1].
        frames, height, width: of the clip; H and W multiples of 8, frames 4n + 1.
    Returns:
        (1, 96, R + T', h, w) float32, R = number of references. Noise gets the same R extra frames, which are
        dropped before decoding.
    Raises:
        InputError: a size that does not fit, a VAE without 16 channels.
    Source: Wan2.1 wan/vace.py vace_encode_frames, vace_encode_masks, vace_latent.
    """
    if vae.config.z_channels != 16:
        raise InputError(f"the {vae.config.version} VAE", "the 2.1 VAE (16 channels) for VACE")
    frames = _clip_length(frames)
    for name, tensor, expected in (
        ("video", video, (3, frames, height, width)),
        ("mask", mask, (1, frames, height, width)),
        *((f"reference {i + 1}", reference, (3, height, width)) for i, reference in enumerate(references)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise InputError(f"{name} of shape {tuple(tensor.shape)}", f"{expected}")

    stride = vae.config.space_stride
    if mask is None:
        mask = torch.ones(1, 1, 1, 1).expand(1, frames, height, width)
    inactive = torch.cat(list(vae.encode_chunks(_masked(video, mask, False, (frames, height, width)))), dim=2)
    reactive = inactive  # without a video both halves are grey
    if video is not None:
        reactive = torch.cat(list(vae.encode_chunks(_masked(video, mask, True, (frames, height, width)))), dim=2)
    soft = rearrange(mask.float(), "1 t (h p) (w q) -> 1 (p q) t h w", p=stride, q=stride).to(inactive.device)
    soft = F.interpolate(soft, size=(latent_frames(frames), *soft.shape[3:]), mode="nearest-exact")
    context = torch.cat((inactive, reactive, soft), dim=1)
    latents = [vae.encode(reference[None, :, None]) for reference in references]
    given = [torch.cat((z, torch.zeros_like(z), context.new_zeros(1, 64, *z.shape[2:])), dim=1) for z in latents]
    return torch.cat((*given, context), dim=2)


def _clip_length(frames) -> int:
    """A frame count that the VAE can make; how long a clip a model can make is checked elsewhere."""
    frames = whole_number("frames", frames, 1, video_frames(ROPE_POSITIONS))
    if frames % 4 != 1:
        raise InputError(
            f"{frames} frames", "a multiple of 4, plus 1", f"The nearest count is {either(nearest_frames(frames))}"
        )
    return frames


def _masked(video: Tensor | None, mask: Tensor, reactive: bool, size: tuple[int, int, int]) -> Iterator[Tensor]:
    """One half of the video, frame by frame; what belongs to the other half is grey. The mask is cut at 0.5."""
    frames, height, width = size
    for i in range(frames):
        if video is None:
            yield torch.zeros(1, 3, 1, height, width)
        else:
            keep = (mask[:, i : i + 1] > 0.5) == reactive
            yield (video[:, i : i + 1] * keep)[None]
