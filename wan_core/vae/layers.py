"""Layers of the causal video VAE.

Every layer is called as `layer(x, cache)` with x (B, C, T, H, W), one chunk of the video. `cache` is a dict that the
caller owns for one video: a layer that looks back in time keeps the end of its input there under itself. An empty
dict means the start of a video, so nothing is shared between videos, tiles or threads.
Source: Wan2.2 wan/modules/vae2_1.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

FeatureCache = dict[nn.Module, Tensor]

CHUNK_PIXELS = 4096  # of all frames in a chunk together, from an upsampling on; two frames at least


class CausalConv3d(nn.Conv3d):
    """A convolution whose time taps end at the present frame; zeros stand before the start of the video.

    Height and width keep their size; time does too, since the frames that the first taps see come from the cache.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int, int] = (3, 3, 3)):
        super().__init__(channels_in, channels_out, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        if x.shape[2] == 1 and self not in cache:
            cache[self] = F.pad(x, (0, 0, 0, 0, self.kernel_size[0] - 2, 0))
            return self.first_frame(x)
        return super().forward(self.with_past(x, cache))

    def with_past(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """x (B, C, T, H, W) after the frames before it: (B, C, history + T, H, W). Its last frames go to the cache."""
        history = self.kernel_size[0] - 1
        past = cache[self] if self in cache else x.new_zeros(*x.shape[:2], history, *x.shape[3:])
        x = torch.cat((past, x), dim=2)
        cache[self] = x[:, :, x.shape[2] - history :].clone()
        return x

    def first_frame(self, x: Tensor) -> Tensor:
        """x (B, C, 1, H, W), the start of a video, by the last tap in time alone: the others see zeros."""
        return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=self.padding[1:]).unsqueeze(2)


def frames_as_batch(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> (b t) c h w")


class ChannelRMSNorm(nn.Module):
    """x / ‖x‖₂ over channels · √C · gamma."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * dims))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * (x.shape[1] ** 0.5 * self.gamma)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, layers: "VAELayers"):
        super().__init__()
        self.residual = nn.ModuleDict(
            {
                "0": ChannelRMSNorm(channels_in, 3),
                "2": layers.causal_conv(channels_in, channels_out),
                "3": ChannelRMSNorm(channels_out, 3),
                "6": layers.causal_conv(channels_out, channels_out),
            }
        )
        self.shortcut = layers.conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        norm1, conv1, norm2, conv2 = self.residual.values()
        h = conv1(F.silu(norm1(x)), cache)  # (B, C_out, T, H, W)
        h = conv2(F.silu(norm2(h)), cache)
        return h + self.shortcut(x)


class AttentionBlock(nn.Module):
    """Single-head attention within each frame."""

    def __init__(self, channels: int, layers: "VAELayers"):
        super().__init__()
        self.norm = ChannelRMSNorm(channels, 2)
        self.to_qkv = layers.conv2d(channels, 3 * channels, 1)
        self.proj = layers.conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        b, _, _, h, w = x.shape
        qkv = self.to_qkv(self.norm(frames_as_batch(x)))  # (B · T, 3 C, H, W)
        q, k, v = rearrange(qkv, "n (three c) h w -> three n 1 (h w) c", three=3)
        out = F.scaled_dot_product_attention(q, k, v)
        out = self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=h, w=w))
        return x + rearrange(out, "(b t) c h w -> b c t h w", b=b)


class Downsample(nn.Module):
    """Halves height and width and, with `temporal`, time; the first frame of a video stays alone."""

    def __init__(self, channels: int, temporal: bool, layers: "VAELayers"):
        super().__init__()
        self.resample = nn.ModuleDict({"1": layers.conv2d(channels, channels, 3, stride=2)})
        if temporal:
            self.time_conv = layers.conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))
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

    def __init__(self, channels_in: int, channels_out: int, temporal: bool, layers: "VAELayers"):
        super().__init__()
        self.resample = nn.ModuleDict({"1": layers.conv2d(channels_in, channels_out, 3, padding=1)})
        if temporal:
            self.time_conv = layers.causal_conv(channels_in, 2 * channels_in, (3, 1, 1))
        self.temporal = temporal

    def forward(self, x: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """The result in chunks of a few frames, so that few are held in the stages to come."""
        if self.temporal:
            if self.time_conv in cache:
                x = rearrange(self.time_conv(x, cache), "b (two c) t h w -> b c (t two) h w", two=2)
            else:
                cache[self.time_conv] = x.new_zeros(x.shape[0], x.shape[1], 2, *x.shape[3:])
        # Whole pairs of frames that were doubled in time; more than one where they are small, since each chunk has to
        # read the weights of the stages to come.
        pairs = max(1, CHUNK_PIXELS // (2 * 4 * x.shape[3] * x.shape[4]))
        yield from map(self.enlarged, x.split(2 * pairs, dim=2))

    def enlarged(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C_out, T, 2H, 2W)."""
        b = x.shape[0]
        x = F.interpolate(frames_as_batch(x), scale_factor=2.0, mode="nearest-exact")
        return rearrange(self.resample["1"](x), "(b t) c h w -> b c t h w", b=b)


def in_chunks(layers: Sequence[nn.Module], x: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
    """x through the decoder's layers; what one of them gives in chunks goes on chunk by chunk."""
    for i, layer in enumerate(layers):
        x = layer(x, cache)
        if isinstance(x, Iterator):
            # `map`, here and in the decoders, since a loop would hold each chunk until the next one is there.
            yield from chain.from_iterable(map(partial(in_chunks, layers[i + 1 :], cache=cache), x))
            return
    yield x


class Middle(nn.ModuleList):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, channels: int, layers: "VAELayers"):
        super().__init__(
            [
                layers.residual_block(channels, channels, layers),
                AttentionBlock(channels, layers),
                layers.residual_block(channels, channels, layers),
            ]
        )

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        for layer in self:
            x = layer(x, cache)
        return x


class OutputHead(nn.ModuleDict):
    """Norm, SiLU and the last convolution."""

    def __init__(self, channels_in: int, channels_out: int, layers: "VAELayers"):
        super().__init__({"0": ChannelRMSNorm(channels_in, 3), "2": layers.causal_conv(channels_in, channels_out)})

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        norm, conv = self.values()
        return conv(F.silu(norm(x)), cache)


@dataclass(frozen=True)
class VAELayers:
    """The classes that a VAE is built from; a host may bring subclasses with the same parameter names."""

    conv2d: type[nn.Conv2d] = nn.Conv2d
    conv3d: type[nn.Conv3d] = nn.Conv3d
    causal_conv: type[CausalConv3d] = CausalConv3d
    residual_block: type[ResidualBlock] = ResidualBlock
    upsample: type[Upsample] = Upsample
    output_head: type[OutputHead] = OutputHead


PLAIN = VAELayers()
