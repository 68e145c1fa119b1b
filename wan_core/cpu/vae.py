"""The VAE on a CPU: layers that compute what those of `wan_core.vae` do, in less arithmetic and memory.

    Tiles of rows              silu(norm(x)) of a few rows of pixels at a time: what lies between stays in a core's cache,
                               and no tensor of it exists
    Pairs of frames            four products in place of six: minimal filtering F(2, 3) over time
    Nearest-neighbour, 2×2     four products with 2×2 taps at the small size in place of one with 3×3 at the large: 16
                               multiplications in place of 36
    Few output channels        the frames times the taps of all three times at once, and the cache holds those products,
                               not frames: 9 numbers a pixel in place of a frame's channels
    Filters of wide layers     a few output channels at a time, since oneDNN copies filters into its own order at each call
    float32                    whatever dtype is stored, since no CPU is faster in another

All are exact in real numbers; in float32 they differ from torch's by its rounding (2e-6 of a clip). Together they decode in
0.66 to 0.71 of diffusers' time and 0.72 to 0.78 of ComfyUI's, in 0.43 to 0.47 of its memory (benchmarks/results/vae.md).
Source of the filtering: Winograd, Arithmetic Complexity of Computations, 1980.
"""

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VAEConfig
from ..vae import WanVAE
from ..vae.layers import CausalConv3d, FeatureCache, OutputHead, ResidualBlock, Upsample, VAELayers
from .ops import suits

LARGE = 32 * 32  # pixels of a frame from which on this pays: filters are prepared at each call
TILE_PIXELS = 1024  # of a tile of rows, at least; with frames and channels, a megabyte or a few
WIDE = 2**24  # weights of a convolution, 64 MiB in float32, from which on a copy of its filters is a peak of memory
WINOGRAD_WIDE = 384  # input channels from which on filters for all output channels at once do not stay in a core's cache
WINOGRAD_FILTERS, FILTERS = 48, 128  # output channels at a time in such layers; in other wide ones

NARROW = (torch.float32, torch.bfloat16, torch.float16)  # what float32 can stand for


def make_vae(config: VAEConfig) -> WanVAE:
    """A VAE that is fast on a CPU; anywhere else, and where gradients are asked for, it is the plain one."""
    return WanVAE(config, CPU_LAYERS)


class CpuConv2d(nn.Conv2d):
    """A convolution that says whether its weights may be used in its place."""

    def suits(self, x: Tensor) -> bool:
        return x.dtype == self.weight.dtype and x.dtype in NARROW and suits(self, x)


class CpuCausalConv3d(CausalConv3d):
    """The same; with very many filters, some of them at a time."""

    def suits(self, x: Tensor) -> bool:
        return x.dtype == self.weight.dtype and x.dtype in NARROW and suits(self, x)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        if self not in cache or self.weight.numel() <= WIDE or not self.suits(x):
            return super().forward(x, cache)
        return split_conv3d(self, self.with_past(x, cache))


class CpuResidualBlock(ResidualBlock):
    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        norm1, conv1, norm2, conv2 = self.residual.values()
        if not pays(x, conv1, conv2):
            return super().forward(x, cache)
        h = norm_silu_conv(norm1, conv1, x, cache)
        return norm_silu_conv(norm2, conv2, h, cache, residual=self.shortcut(x))


class CpuUpsample(Upsample):
    def enlarged(self, x: Tensor) -> Tensor:
        conv = self.resample["1"]
        return upsample_conv(conv, x) if pays(x, conv, scale=2) else super().enlarged(x)


class CpuOutputHead(OutputHead):
    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        norm, conv = self.values()
        return norm_silu_conv_few_outputs(norm, conv, x, cache) if pays(x, conv) else super().forward(x, cache)


CPU_LAYERS = VAELayers(
    conv2d=CpuConv2d,
    causal_conv=CpuCausalConv3d,
    residual_block=CpuResidualBlock,
    upsample=CpuUpsample,
    output_head=CpuOutputHead,
)


def pays(x: Tensor, *convs: CpuConv2d | CpuCausalConv3d, scale: int = 1) -> bool:
    """Whether frames of x (…, H, W), made larger by `scale`, are large, and the convolutions suit."""
    return x.shape[-2] * x.shape[-1] * scale**2 >= LARGE and all(conv.suits(x) for conv in convs)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, T, H, W) → (B, T, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """(B, T, H, W, C) → (B, C, T, H, W), as it lies in memory."""
    return x.permute(0, 4, 1, 2, 3)


def split_conv3d(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """conv(x), for some output channels at a time."""
    filters = zip(conv.weight.split(FILTERS), conv.bias.split(FILTERS), strict=True)
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
                target = out[n, frames, rows, :, channels]
                if residual is None:
                    target.copy_(y)
                else:
                    torch.add(residual[n, frames, rows, :, channels], y, out=target)
    return channels_first(out)


def norm_silu_conv_few_outputs(norm: nn.Module, conv: CausalConv3d, x: Tensor, cache: FeatureCache) -> Tensor:
    """The same for few output channels: frames are convolved with the taps of all three times at once, and `cache[conv]`
    holds what the last two frames add to the next ones, which is far smaller than the frames."""
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
    out = terms[:, :-2, ..., 0] + terms[:, 1:-1, ..., 1] + terms[:, 2:, ..., 2] + conv.bias.float()
    return channels_first(out.to(x.dtype))


def row_tiles(
    height: int, frames: int, width: int, channels: int, pixels: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """A frame in tiles of whole rows, about so many pixels each, with the neighbours above and below that a kernel sees.

    Yields:
        The tile's rows; those that the caller has to fill in, which include the row below; the tile (frames, rows + 2,
        width, channels), zero beyond the frame; and the part of it to be filled in before the next tile is asked for.
    """
    count = max(8, pixels // width)
    above = None
    for top in range(0, height, count):
        bottom = min(top + count, height)
        fresh = slice(top, min(bottom + 1, height))
        tile = torch.zeros(frames, bottom - top + 2, width, channels)
        if above is not None:
            tile[:, 0] = above
        yield slice(top, bottom), fresh, tile, tile[:, 1 : 1 + fresh.stop - top]
        above = tile[:, -2].clone()


def norm_silu(norm: nn.Module, x: Tensor, out: Tensor) -> None:
    """silu(norm(x)) of x (T, H, W, C), into `out`."""
    x = x.float()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(1e-12)
    torch.div(x, length, out=out)
    F.silu(out.mul_(norm.gamma.flatten().float() * x.shape[-1] ** 0.5), inplace=True)


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
    packed = torch.empty(len(weight), taps, weight.shape[1])
    for source, target in zip(weight.split(16), packed.split(16), strict=True):
        target.copy_(source.flatten(2).transpose(1, 2))
    return packed.unflatten(1, weight.shape[2:]).permute(0, 4, 1, 2, 3)


def upsample_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3×3 convolution of x (B, C, T, H, W) repeated to twice its height and width: a 2×2 one for each of the four
    positions in a pixel of x, whose taps are sums of those that fall on the same pixel."""
    x = channels_last(x)
    b, t, h, w, c = x.shape
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
