"""The VAE's large convolutions on a CPU, in less arithmetic and memory than torch's own take.

    A row of frames            silu(norm(x)) of a few rows of pixels at a time: what lies between stays in the cache
    Two frames at once         four products in place of six (minimal filtering F(2, 3) over time)
    The first frame            one product in place of three: zeros stand before it
    Nearest-neighbour, 2×2     four products with 2×2 taps at the small size in place of one with 3×3 at the large
    Wide layers                filters of a few output channels at a time

All are exact in real numbers; in float32 they differ from torch's by its rounding. Computed in float32, whatever dtype is
stored. Elsewhere, and where gradients are asked for, the layers do without this file.
Source of the filtering: Winograd, Arithmetic Complexity of Computations, 1980.
"""

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import on_plain_cpu

LARGE = 32 * 32  # pixels of a frame from which on this pays: filters are prepared at each call

NARROW = (torch.float32, torch.bfloat16, torch.float16)  # what float32 can stand for


class Direct:
    """A convolution whose weights may be used directly."""

    def is_direct(self, x: Tensor) -> bool:
        """Whether x and the weights suit this file."""
        return x.dtype == self.weight.dtype and x.dtype in NARROW and on_plain_cpu(x, self.weight)


class Conv2d(Direct, nn.Conv2d):
    pass


class Conv3d(Direct, nn.Conv3d):
    def first_frame(self, x: Tensor) -> Tensor:
        """x (B, C, 1, H, W), the start of a video, without the taps that see only zeros."""
        return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=self.padding[1:]).unsqueeze(2)


class Layers:
    """The default factories of the VAE."""

    Conv2d, Conv3d = Conv2d, Conv3d


def is_direct(conv: nn.Module, x: Tensor, scale: int = 1) -> bool:
    """Whether `conv` of x (…, H, W), made larger by `scale`, is done here."""
    return is_large(x, scale) and isinstance(conv, Direct) and conv.is_direct(x)


def is_large(x: Tensor, scale: int = 1) -> bool:
    return x.shape[-2] * x.shape[-1] * scale**2 >= LARGE


def convolved(conv: nn.Module, x: Tensor) -> Tensor:
    """conv(x); where filters are many, some output channels at a time, since oneDNN copies them into its own order at each call."""
    if not (isinstance(conv, Direct) and conv.is_direct(x) and conv.weight.numel() > 2**24):
        return conv(x)
    parts = zip(conv.weight.split(128), conv.bias.split(128))
    return torch.cat([F.conv3d(x, weight, bias, conv.stride, conv.padding) for weight, bias in parts], dim=1)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, T, H, W) → (B, T, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """(B, T, H, W, C) → (B, C, T, H, W), as it lies in memory."""
    return x.permute(0, 4, 1, 2, 3)


def norm_silu_conv(norm: nn.Module, conv: nn.Module, x: Tensor, cache: dict, add: Tensor | None = None) -> Tensor:
    """conv(silu(norm(x))), causal in time, kernel 3×3×3; `cache[conv]` holds what `layers.causal` would, and is updated in place.

    Args:
        x: (B, C, T, H, W), the next frames of a video.
        add: what the result is added to, in its place.
    """
    x, starts = channels_last(x), conv not in cache
    b, t, h, w, c = x.shape
    past = x.new_zeros(b, 2, h, w, c) if starts else channels_last(cache[conv])
    cache[conv] = channels_first(past)
    out = x.new_empty(b, t, h, w, conv.out_channels) if add is None else channels_last(add)
    convolution = OverTime(conv, t, starts)
    for n in range(b):
        for rows, seen, strip, inner in _strips(h, t + 2, w, c, convolution.pixels):
            inner[:2] = past[n, :, seen]
            _norm_silu(norm, x[n, :, seen], inner[2:])
            for channels, frames, y in convolution(strip.permute(0, 3, 1, 2)):
                y = y.permute(0, 2, 3, 1)
                if add is None:
                    out[n, frames, rows, :, channels] = y
                else:
                    out[n, frames, rows, :, channels] += y
            done = seen.stop if rows.stop == h else rows.stop - 1  # what no later strip reads
            past[n, :, seen.start : done] = inner[-2:, : done - seen.start]
    return channels_first(out)


def norm_silu_conv_narrow(norm: nn.Module, conv: nn.Module, x: Tensor, cache: dict) -> Tensor:
    """The same for few output channels: frames are convolved with the taps of all three times at once, and `cache[conv]`
    holds what the last two frames add to the next ones, which is far smaller than the frames."""
    x, channels = channels_last(x), conv.out_channels
    b, t, h, w, c = x.shape
    parts = x.new_empty(b, t, h, w, channels, 3, dtype=torch.float32)  # what each frame adds to itself and the next two
    weight = conv.weight.float().transpose(1, 2).reshape(3 * channels, c, 3, 3)
    for n in range(b):
        for rows, seen, strip, inner in _strips(h, t, w, c, 1024):
            _norm_silu(norm, x[n, :, seen], inner)
            y = F.conv2d(strip.permute(0, 3, 1, 2), weight, padding=(0, 1))
            parts[n, :, rows] = y.permute(0, 2, 3, 1).unflatten(-1, (channels, 3))
    past = cache.setdefault(conv, parts.new_zeros(b, 2, h, w, channels, 3))
    parts = torch.cat((past, parts), dim=1)
    past.copy_(parts[:, -2:])
    out = parts[:, :-2, ..., 0] + parts[:, 1:-1, ..., 1] + parts[:, 2:, ..., 2] + conv.bias.float()
    return channels_first(out.to(x.dtype))


def _strips(
    height: int, frames: int, width: int, channels: int, pixels: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows of a frame with about so many pixels at a time: the rows; those with the neighbours that a kernel sees; an empty strip
    (frames, rows + 2, width, channels) for the latter, with zeros beyond the frame; and the part of it within the frame."""
    count = max(8, pixels // width)
    for top in range(0, height, count):
        bottom = min(top + count, height)
        seen = slice(max(top - 1, 0), min(bottom + 1, height))
        strip = torch.zeros(frames, bottom - top + 2, width, channels)
        yield slice(top, bottom), seen, strip, strip[:, seen.start - top + 1 : seen.stop - top + 1]


def _norm_silu(norm: nn.Module, x: Tensor, out: Tensor) -> None:
    """silu(norm(x)) of x (T, H, W, C), into `out`."""
    x = x.float()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(1e-12)
    torch.div(x, length, out=out)
    F.silu(out.mul_(norm.gamma.flatten().float() * x.shape[-1] ** 0.5), inplace=True)


class OverTime:
    """A causal 3×3×3 convolution of strips (2 + frames, C, 2 + rows, W), in as few products as the frames allow."""

    def __init__(self, conv: nn.Conv3d, frames: int, starts: bool):
        self.conv, self.frames, self.pairs = conv, frames, frames % 2 == 0
        self.first = 2 if starts and frames == 1 else 0  # tap in time that sees more than the zeros before the video
        # Filters of a wide layer come a few at a time, for each strip again.
        self.blocks = _blocks(conv.out_channels, 48 if conv.in_channels >= 384 else conv.out_channels)
        self.pixels = max(1024, 4 * conv.in_channels)  # few enough for a core's cache, unless filters are large
        self.kept = self.filters(self.blocks[0]) if len(self.blocks) == 1 else None

    def __call__(self, x: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Output channels, frames, and their values (·, ·, rows, W)."""
        inputs = self.inputs(x) if self.kept else list(self.inputs(x))
        for channels in self.blocks:
            bias = None if self.conv.bias is None else self.conv.bias[channels].float()
            products = (
                F.conv2d(x, weight, bias if k in (0, 3) else None, padding=(0, 1))
                for k, (x, weight) in enumerate(zip(inputs, self.kept or self.filters(channels)))
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
        taps = list(_channels_last_filters(self.conv.weight[channels, :, self.first :]).unbind(2))
        if not self.pairs:
            return taps
        first, middle, last = taps
        outer = (first + last).div_(2)
        summed = middle.div_(2).add_(outer)
        return [first, summed, outer.mul_(2).sub_(summed), last]  # (first ± middle + last) / 2


def _blocks(channels: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, channels)) for start in range(0, channels, size)]


def _channels_last_filters(weight: Tensor) -> Tensor:
    """(C_out, C, T, H, W) in float32, channels last; a few filters at a time, since a strided pass over all is slow."""
    taps = weight[0, 0].numel()
    packed = torch.empty(len(weight), taps, weight.shape[1])
    for source, target in zip(weight.split(16), packed.split(16)):
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
    for channels in _blocks(conv.out_channels, 128):
        weight = _channels_last_filters(conv.weight[channels].unsqueeze(2)).squeeze(2)
        for i in range(2):
            rows = _half(weight, 2, i)
            for j in range(2):
                part = F.conv2d(
                    padded[:, :, i : i + h + 1, j : j + w + 1],
                    _half(rows, 3, j),
                    None if bias is None else bias[channels],
                )
                out[:, :, i::2, j::2, channels] = part.permute(0, 2, 3, 1).unflatten(0, (b, t))
    return channels_first(out)


def _half(weight: Tensor, dim: int, half: int) -> Tensor:
    """Three taps along `dim` as the two that the first (0) or second (1) half of a repeated pixel sees."""
    a, b, c = weight.split(1, dim)
    return torch.cat((a + b, c) if half else (a, b + c), dim)
