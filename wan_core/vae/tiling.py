"""Decoding and encoding in spatial tiles, for sizes that do not fit at once.

Space is cut, time is not: every tile runs through the whole clip with a feature cache of its own. Overlaps are blended
linearly. The result is close to the untiled one, not equal: the middle of the VAE attends over the whole frame.
"""

from itertools import product

import torch
from torch import Tensor

from ..errors import InputError
from ..shapes import video_frames
from ..validate import finite
from .model import WanVAE


def decode_tiled(vae: WanVAE, latents: Tensor, tile: int, overlap: int) -> Tensor:
    """Latents (B, z, n, h, w) → video (B, 3, 4n − 3, H, W) float32, clamped to [-1, 1].

    Args:
        tile, overlap: in pixels; a tile is at least twice the VAE's stride, the overlap less than a tile.
    Raises:
        InputError: a tile or an overlap that cannot be used. NumericalError: NaN or infinity.
    """
    stride = vae.config.space_stride
    b, _, n, h, w = latents.shape
    tiles = _tiles(h * stride, w * stride, tile, overlap, stride)
    video = torch.zeros(b, 3, video_frames(n), h * stride, w * stride, dtype=torch.float32, device=vae.device)
    weight = video.new_zeros(h * stride, w * stride)
    for (top, bottom), (left, right), blend in tiles:
        cut = latents[:, :, :, top // stride : bottom // stride, left // stride : right // stride]
        start = 0
        for chunk in vae.raw_chunks(cut):
            frames = slice(start, start + chunk.shape[2])
            video[:, :, frames, top:bottom, left:right] += chunk * blend.to(chunk)
            start = frames.stop
        weight[top:bottom, left:right] += blend.to(weight)
    return finite(video.div_(weight)).clamp_(-1, 1)


def encode_tiled(vae: WanVAE, video: Tensor, tile: int, overlap: int) -> Tensor:
    """Video (B, 3, T, H, W) in [-1, 1] → normalised latents; arguments as in `decode_tiled`."""
    stride = vae.config.space_stride
    b, _, frames, h, w = video.shape
    tiles = _tiles(h, w, tile, overlap, stride)
    latents = torch.zeros(
        b,
        vae.config.z_channels,
        1 + (frames - 1) // 4,
        h // stride,
        w // stride,
        dtype=torch.float32,
        device=vae.device,
    )
    weight = latents.new_zeros(h // stride, w // stride)
    for (top, bottom), (left, right), blend in tiles:
        blend = blend[stride // 2 :: stride, stride // 2 :: stride].to(latents)
        rows, columns = slice(top // stride, bottom // stride), slice(left // stride, right // stride)
        latents[..., rows, columns] += vae.encode(video[..., top:bottom, left:right]) * blend
        weight[rows, columns] += blend
    return latents.div_(weight)


Tile = tuple[tuple[int, int], tuple[int, int], Tensor]


def _tiles(height: int, width: int, tile: int, overlap: int, stride: int) -> list[Tile]:
    """(top, bottom), (left, right) and weights of every tile, in pixels and multiples of the stride."""
    tile, overlap = tile // stride * stride, overlap // stride * stride
    if tile < 2 * stride or not 0 <= overlap < tile:
        raise InputError(
            f"tiles of {tile} with an overlap of {overlap} pixels",
            f"tiles of at least {2 * stride}, and a smaller overlap",
            "256 and 64 suit most cards",
        )
    return [
        (rows, columns, _ramp(*rows, height, overlap)[:, None] * _ramp(*columns, width, overlap))
        for rows, columns in product(_spans(height, tile, overlap), _spans(width, tile, overlap))
    ]


def _spans(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Tiles of one axis; the last one ends with it."""
    starts = list(range(0, max(1, size - overlap), tile - overlap))
    return [(max(0, min(start, size - tile)), min(start + tile, size)) for start in starts]


def _ramp(start: int, end: int, size: int, overlap: int) -> Tensor:
    """Weights that rise over the overlap with a tile before, and fall over that with a tile after."""
    weights = torch.ones(end - start, dtype=torch.float32)
    rise = (torch.arange(min(overlap, end - start), dtype=torch.float32) + 1) / (overlap + 1)
    if start > 0:
        weights[: len(rise)] *= rise
    if end < size:
        weights[len(weights) - len(rise) :] *= rise.flip(0)
    return weights
