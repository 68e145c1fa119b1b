"""The convolutions of `cpu.vae`: channels last, in float32, a few rows of pixels or output channels at a time."""

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..vae.layers import CausalConv3d, FeatureCache

TILE_PIXELS = 1024  # of a tile of rows, at least; with frames and channels, a megabyte or a few
WINOGRAD_WIDE = 384  # input channels from which on the filters of all output channels do not stay in a core's cache
WINOGRAD_FILTERS, FILTERS = 48, 128  # output channels at a time in such layers; in other wide ones


def channels_last(x: Tensor) -> Tensor:
    """(B, C, T, H, W) → (B, T, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """(B, T, H, W, C) → (B, C, T, H, W), as it lies in memory."""
    return x.permute(0, 4, 1, 2, 3)


def split_conv3d(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """conv(x), for some output channels at a time."""
    filters = zip(conv.weight.split(FILTERS), conv.get_parameter("bias").split(FILTERS), strict=True)
    return torch.cat([F.conv3d(x, weight, bias, conv.stride, conv.padding) for weight, bias in filters], dim=1)


def norm_silu_conv(
    norm: nn.Module, conv: CausalConv3d, x: Tensor, cache: FeatureCache, residual: Tensor | None = None
) -> Tensor:
    """conv(silu(norm(x))), causal in time, kernel 3×3×3; `cache[conv]` holds what it would in `CausalConv3d`.

    Args:
        x: (B, C, T, H, W), the next frames of a video.
        residual: (B, C, T, H, W), added to the result, which then is written over x.
    """
    x, starts = channels_last(x), conv not in cache
    b, t, h, w, c = x.shape
    past = x.new_zeros(b, 2, h, w, c) if starts else channels_last(cache[conv])
    cache[conv] = channels_first(past)
    out = x.new_empty(b, t, h, w, conv.out_channels) if residual is None else x
    residual = None if residual is None else channels_last(residual)
    convolution = WinogradConv3d(conv, t, starts)
    for n in range(b):
        for rows, fresh, tile, inner in row_tiles(h, t + 2, w, c, convolution.pixels):
            inner[:2] = past[n, :, fresh]
            norm_silu(norm, x[n, :, fresh], inner[2:])
            past[n, :, rows] = tile[-2:, 1:-1]
            for channels, frames, y in convolution(tile.permute(0, 3, 1, 2)):
                y = y.permute(0, 2, 3, 1)
                if residual is not None:
                    y = y.add_(residual[n, frames, rows, :, channels])
                out[n, frames, rows, :, channels] = y
    return channels_first(out)


def norm_silu_conv_few_outputs(norm: nn.Module, conv: CausalConv3d, x: Tensor, cache: FeatureCache) -> Tensor:
    """The same for few output channels: frames are convolved with the taps of all three times at once.

    `cache[conv]` holds what the last two frames add to the next ones, which is far smaller than the frames.
    """
    x, channels = channels_last(x), conv.out_channels
    b, t, h, w, c = x.shape
    terms = x.new_empty(b, t, h, w, channels, 3, dtype=torch.float32)  # what each frame adds to itself and the next two
    weight = conv.weight.float().transpose(1, 2).reshape(3 * channels, c, 3, 3)
    for n in range(b):
        for rows, fresh, tile, inner in row_tiles(h, t, w, c, TILE_PIXELS):
            norm_silu(norm, x[n, :, fresh], inner)
            y = F.conv2d(tile.permute(0, 3, 1, 2), weight, padding=(0, 1))
            terms[n, :, rows] = y.permute(0, 2, 3, 1).unflatten(-1, (channels, 3))
    past = cache.setdefault(conv, terms.new_zeros(b, 2, h, w, channels, 3))
    terms = torch.cat((past, terms), dim=1)
    past.copy_(terms[:, -2:])
    out = terms[:, :-2, ..., 0] + terms[:, 1:-1, ..., 1] + terms[:, 2:, ..., 2] + conv.get_parameter("bias").float()
    return channels_first(out.to(x.dtype))


def row_tiles(
    height: int, frames: int, width: int, channels: int, pixels: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """A frame in tiles of whole rows, about so many pixels each, with the rows above and below that a kernel sees.

    Yields:
        The tile's rows; those that the caller has to fill in, which include the row below; the tile (frames, rows + 2,
        width, channels), zero beyond the frame; and the part of it to be filled in before the next tile is asked for.
    """
    count = max(8, pixels // width)
    above = None
    for top in range(0, height, count):
        bottom = min(top + count, height)
        fresh = slice(top, min(bottom + 1, height))
        tile = torch.zeros(frames, bottom - top + 2, width, channels, dtype=torch.float32, device="cpu")
        if above is not None:
            tile[:, 0] = above
        yield slice(top, bottom), fresh, tile, tile[:, 1 : 1 + fresh.stop - top]
        above = tile[:, -2].clone()


def norm_silu(norm: nn.Module, x: Tensor, out: Tensor) -> None:
    """silu(norm(x)) of x (T, H, W, C), into `out`."""
    x = x.float()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(1e-12)
    torch.div(x, length, out=out)
    F.silu(out.mul_(norm.get_parameter("gamma").flatten().float() * x.shape[-1] ** 0.5), inplace=True)


class WinogradConv3d:
    """A causal 3×3×3 convolution of tiles (2 + frames, C, 2 + rows, W), in as few products as the frames allow."""

    def __init__(self, conv: nn.Conv3d, frames: int, starts: bool):
        self.conv, self.frames, self.pairs = conv, frames, frames % 2 == 0
        self.first = 2 if starts and frames == 1 else 0  # tap in time that sees more than the zeros before the video
        # Filters of a wide layer come a few at a time, for each tile again.
        size = WINOGRAD_FILTERS if conv.in_channels >= WINOGRAD_WIDE else conv.out_channels
        self.blocks = blocks(conv.out_channels, size)
        self.pixels = max(TILE_PIXELS, 4 * conv.in_channels)  # more for wide layers, to use the filters for longer
        self.kept = self.filters(self.blocks[0]) if len(self.blocks) == 1 else None

    def __call__(self, x: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Output channels, frames, and their values (·, ·, rows, W)."""
        inputs = self.inputs(x) if self.kept else list(self.inputs(x))
        for channels in self.blocks:
            bias = None if self.conv.bias is None else self.conv.bias[channels].float()
            products = (
                F.conv2d(x, weight, bias if k in (0, 3) else None, padding=(0, 1))
                for k, (x, weight) in enumerate(zip(inputs, self.kept or self.filters(channels), strict=True))
            )
            if self.pairs:
                first, both, either, last = products
                yield channels, slice(0, None, 2), first.add_(both).add_(either)
                yield channels, slice(1, None, 2), last.add_(both).sub_(either)
            else:
                yield channels, slice(None), functools.reduce(Tensor.add_, products)

    def inputs(self, x: Tensor) -> Iterator[Tensor]:
        """What each product is of."""
        if not self.pairs:
            yield from (x[k : k + self.frames] for k in range(self.first, 3))
            return
        a, b, c, d = (x[k : k + self.frames - 1 : 2] for k in range(4))
        yield a - c
        yield b + c
        yield c - b
        yield d - b

    def filters(self, channels: slice) -> list[Tensor]:
        """What each input is multiplied by."""
        taps = list(channels_last_filters(self.conv.weight[channels, :, self.first :]).unbind(2))
        if not self.pairs:
            return taps
        first, middle, last = taps
        outer = (first + last).div_(2)
        summed = middle.div_(2).add_(outer)
        return [first, summed, outer.mul_(2).sub_(summed), last]  # (first ± middle + last) / 2


def blocks(channels: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, channels)) for start in range(0, channels, size)]


def channels_last_filters(weight: Tensor) -> Tensor:
    """(C_out, C, T, H, W) in float32, channels last; a few filters at a time, since a strided pass over all is slow."""
    taps = weight[0, 0].numel()
    packed = torch.empty(len(weight), taps, weight.shape[1], dtype=torch.float32, device="cpu")
    for source, target in zip(weight.split(16), packed.split(16), strict=True):
        target.copy_(source.flatten(2).transpose(1, 2))
    return packed.unflatten(1, weight.shape[2:]).permute(0, 4, 1, 2, 3)


def upsample_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3×3 convolution of x (B, C, T, H, W) repeated to twice its height and width: a 2×2 one for each of the four
    positions in a pixel of x, whose taps are sums of those that fall on the same pixel."""
    x = channels_last(x)
    b, t, h, w, _ = x.shape
    out = x.new_empty(b, t, 2 * h, 2 * w, conv.out_channels)
    padded = F.pad(x.float().flatten(0, 1), (0, 0, 1, 1, 1, 1)).permute(0, 3, 1, 2)
    bias = None if conv.bias is None else conv.bias.float()
    for channels in blocks(conv.out_channels, FILTERS):
        weight = channels_last_filters(conv.weight[channels].unsqueeze(2)).squeeze(2)
        for i in range(2):
            rows = half_taps(weight, 2, i)
            for j in range(2):
                y = F.conv2d(
                    padded[:, :, i : i + h + 1, j : j + w + 1],
                    half_taps(rows, 3, j),
                    None if bias is None else bias[channels],
                )
                out[:, :, i::2, j::2, channels] = y.permute(0, 2, 3, 1).unflatten(0, (b, t))
    return channels_first(out)


def half_taps(weight: Tensor, dim: int, half: int) -> Tensor:
    """Three taps along `dim` as the two that the first (0) or second (1) half of a repeated pixel sees."""
    a, b, c = weight.split(1, dim)
    return torch.cat((a + b, c) if half else (a, b + c), dim)
