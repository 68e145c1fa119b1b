"""Bernini-R: a source video and reference images as contexts of the clip."""

from collections.abc import Sequence

from torch import Tensor

from ..vae import WanVAE
from .checks import require_vae


def contexts(vae: WanVAE, video: Tensor | None = None, references: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
    """What the transformer sees beside the clip: the source video first, then each reference image.

    Args:
        video: (3, T, H, W) in [-1, 1], frames 4n + 1.
        references: images (3, H, W) in [-1, 1], each of its own size; sides are multiples of 16.
    Returns:
        latents (1, 16, T', h, w) float32, in the order of their sources 1, 2, …
    Raises:
        InputError: a VAE without 16 channels.
    Source: ComfyUI comfy_extras/nodes_bernini.py.
    """
    require_vae(vae, 16, "Bernini-R")
    clips = ([] if video is None else [video]) + [reference[:, None] for reference in references]
    return tuple(vae.encode(clip[None]) for clip in clips)
