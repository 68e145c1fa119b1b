"""VACE: a video, a mask and references as one condition."""

from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError
from ..shapes import latent_frames
from ..vae import WanVAE
from .checks import clip_length, require_vae


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
    require_vae(vae, 16, "VACE")
    frames = clip_length(frames)
    _check_size("video", video, (3, frames, height, width))
    _check_size("mask", mask, (1, frames, height, width))
    for i, reference in enumerate(references):
        _check_size(f"reference {i + 1}", reference, (3, height, width))

    if mask is None:
        mask = torch.ones(1, 1, 1, 1, dtype=torch.float32, device="cpu").expand(1, frames, height, width)
    if video is None:  # both halves are grey
        grey = torch.zeros(1, 3, 1, height, width, dtype=torch.float32, device="cpu")
        inactive = reactive = _encode(vae, (grey for _ in range(frames)))
    else:
        inactive = _encode(vae, _half(video, mask, generated=False))
        reactive = _encode(vae, _half(video, mask, generated=True))
    soft = mask_channels(mask, vae.config.space_stride).to(inactive.device)
    context = torch.cat((inactive, reactive, soft), dim=1)
    given = [_reference(vae.encode(reference[None, :, None])) for reference in references]
    return torch.cat((*given, context), dim=2)


def mask_channels(mask: Tensor, stride: int) -> Tensor:
    """A mask (1, T, H, W) → (1, stride², T', H / stride, W / stride): the pixels under each latent pixel as channels,
    the nearest of the frames in time.
    """
    channels = rearrange(mask.float(), "1 t (h p) (w q) -> 1 (p q) t h w", p=stride, q=stride)
    return interpolate(channels, size=(latent_frames(mask.shape[1]), *channels.shape[3:]), mode="nearest-exact")


def _encode(vae: WanVAE, chunks: Iterator[Tensor]) -> Tensor:
    return torch.cat(list(vae.encode_chunks(chunks)), dim=2)


def _half(video: Tensor, mask: Tensor, *, generated: bool) -> Iterator[Tensor]:
    """One half of the video frame by frame, (1, 3, 1, H, W); the other half is grey. The mask is cut at 0.5."""
    for i in range(video.shape[1]):
        chosen = (mask[:, i : i + 1] > 0.5) == generated
        yield (video[:, i : i + 1] * chosen)[None]


def _reference(z: Tensor) -> Tensor:
    """(1, 16, 1, h, w) → (1, 96, 1, h, w): all of it inactive, nothing to generate."""
    return torch.cat((z, torch.zeros_like(z), z.new_zeros(1, 64, *z.shape[2:])), dim=1)


def _check_size(name: str, tensor: Tensor | None, expected: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != expected:
        raise InputError(f"{name} of shape {tuple(tensor.shape)}", f"{expected}")
