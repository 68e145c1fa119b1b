"""Layers of the causal video VAE.

Every layer is called as `layer(x, cache)` with x (B, C, T, H, W), one chunk of the video. `cache` is a dict that the
caller owns for one video: a layer that looks back in time keeps the end of its input there under itself. An empty
dict means the start of a video, so nothing is shared between videos, tiles or threads.
Source: Wan2.2 wan/modules/vae2_1.py.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .convolution import convolved, is_direct, norm_silu_conv, norm_silu_conv_narrow, upsample_conv

FeatureCache = dict[nn.Module, Tensor]


def causal(conv: nn.Module, x: Tensor, cache: FeatureCache) -> Tensor:
    """A convolution whose time taps end at the present frame; zeros stand before the start of the video."""
    history = conv.kernel_size[0] - 1
    past = cache.get(conv)
    if past is None and x.shape[2] == 1 and hasattr(conv, "first_frame"):  # not torch's own
        cache[conv] = F.pad(x, (0, 0, 0, 0, history - 1, 0))
        return conv.first_frame(x)
    if past is None:
        past = x.new_zeros(*x.shape[:2], history, *x.shape[3:])
    x = torch.cat((past, x), dim=2)
    cache[conv] = past.copy_(x[:, :, x.shape[2] - history :])
    return convolved(conv, x)


def frames_as_batch(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> (b t) c h w")


class RMSNorm(nn.Module):
    """x / ‖x‖₂ over channels · √C · gamma."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * dims))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * (x.shape[1] ** 0.5 * self.gamma)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut. On a CPU the result is written over x."""

    def __init__(self, channels_in: int, channels_out: int, ops):
        super().__init__()
        self.residual = nn.ModuleDict(
            {
                "0": RMSNorm(channels_in, 3),
                "2": ops.Conv3d(channels_in, channels_out, 3, padding=(0, 1, 1)),
                "3": RMSNorm(channels_out, 3),
                "6": ops.Conv3d(channels_out, channels_out, 3, padding=(0, 1, 1)),
            }
        )
        self.shortcut = ops.Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        norm1, conv1, norm2, conv2 = self.residual.values()
        if is_direct(conv1, x):
            h = norm_silu_conv(norm1, conv1, x, cache)
            return norm_silu_conv(norm2, conv2, h, cache, add=self.shortcut(x))
        h = causal(conv1, F.silu(norm1(x)), cache)
        h = causal(conv2, F.silu(norm2(h)), cache)
        return h + self.shortcut(x)


class AttentionBlock(nn.Module):
    """Single-head attention within each frame."""

    def __init__(self, channels: int, ops):
        super().__init__()
        self.norm = RMSNorm(channels, 2)
        self.to_qkv = ops.Conv2d(channels, 3 * channels, 1)
        self.proj = ops.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        b, _, _, h, w = x.shape
        qkv = self.to_qkv(self.norm(frames_as_batch(x)))
        q, k, v = rearrange(qkv, "n (three c) h w -> three n 1 (h w) c", three=3)
        out = F.scaled_dot_product_attention(q, k, v)
        out = self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=h, w=w))
        return x + rearrange(out, "(b t) c h w -> b c t h w", b=b)


class Downsample(nn.Module):
    """Halves height and width and, with `temporal`, time; the first frame of a video stays alone."""

    def __init__(self, channels: int, temporal: bool, ops):
        super().__init__()
        self.resample = nn.ModuleDict({"1": ops.Conv2d(channels, channels, 3, stride=2)})
        if temporal:
            self.time_conv = ops.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))
        self.temporal = temporal

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        frames = F.pad(frames_as_batch(x), (0, 1, 0, 1))
        x = rearrange(self.resample["1"](frames), "(b t) c h w -> b c t h w", b=x.shape[0])
        if not self.temporal:
            return x
        past = cache.get(self)
        cache[self] = x[:, :, -1:].clone()
        return x if past is None else self.time_conv(torch.cat((past, x), dim=2))


class Upsample(nn.Module):
    """Doubles height and width and, with `temporal`, time; the first frame of a video stays alone.

    The temporal convolution never sees that first frame: its history starts with zeros at the second chunk.
    """

    def __init__(self, channels_in: int, channels_out: int, temporal: bool, ops):
        super().__init__()
        self.resample = nn.ModuleDict({"1": ops.Conv2d(channels_in, channels_out, 3, padding=1)})
        if temporal:
            self.time_conv = ops.Conv3d(channels_in, 2 * channels_in, (3, 1, 1))
        self.temporal = temporal

    def forward(self, x: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """The result; where frames are large, two or a few at a time, so that few are held in the stages to come."""
        if self.temporal:
            if self.time_conv in cache:
                x = causal(self.time_conv, x, cache)
                x = rearrange(x, "b (two c) t h w -> b c (t two) h w", two=2)
            else:
                cache[self.time_conv] = x.new_zeros(x.shape[0], x.shape[1], 2, *x.shape[3:])
        # Two frames, or more of small ones: wide layers prepare their filters again for each piece. Even, so that a piece holds
        # whole pairs of doubled frames.
        frames = 2 * max(1, 2048 // (4 * x.shape[3] * x.shape[4]))
        yield from map(self.enlarged, x.split(frames, dim=2))

    def enlarged(self, x: Tensor) -> Tensor:
        """Twice as high and wide."""
        if is_direct(self.resample["1"], x, scale=2):
            return upsample_conv(self.resample["1"], x)
        b = x.shape[0]
        x = F.interpolate(frames_as_batch(x), scale_factor=2.0, mode="nearest-exact")
        return rearrange(self.resample["1"](x), "(b t) c h w -> b c t h w", b=b)


def in_pieces(layers: Sequence[nn.Module], x: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
    """x through the decoder's layers; what one of them gives in pieces goes on piece by piece."""
    for i, layer in enumerate(layers):
        x = layer(x, cache)
        if isinstance(x, Iterator):
            for piece in x:
                yield from in_pieces(layers[i + 1 :], piece, cache)
            return
    yield x


class Middle(nn.ModuleList):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, channels: int, ops):
        super().__init__(
            [
                ResidualBlock(channels, channels, ops),
                AttentionBlock(channels, ops),
                ResidualBlock(channels, channels, ops),
            ]
        )

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        for layer in self:
            x = layer(x, cache)
        return x


class OutputHead(nn.ModuleDict):
    """Norm, SiLU and the last convolution."""

    def __init__(self, channels_in: int, channels_out: int, ops):
        super().__init__(
            {"0": RMSNorm(channels_in, 3), "2": ops.Conv3d(channels_in, channels_out, 3, padding=(0, 1, 1))}
        )

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        norm, conv = self.values()
        if is_direct(conv, x):
            return norm_silu_conv_narrow(norm, conv, x, cache)
        return causal(conv, F.silu(norm(x)), cache)
