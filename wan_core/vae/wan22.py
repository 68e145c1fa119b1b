"""Encoder and decoder of the Wan 2.2 VAE: 48 channels, 4×16×16, with a parameter-free shortcut around each stage.

Source: Wan2.2 wan/modules/vae2_2.py.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from ..config import VAEConfig
from .layers import Downsample, FeatureCache, Middle, VAELayers, in_chunks


def average_down(x: Tensor, channels: int, time: int, space: int) -> Tensor:
    """Fold time × space² neighbours into channels and average groups of them down to `channels`.

    A time that is not a multiple of `time` is padded with zeros in front.
    """
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    x = rearrange(x, "b c (t r) (h p) (w q) -> b (c r p q) t h w", r=time, p=space, q=space)
    return reduce(x, "b (c g) t h w -> b c t h w", "mean", c=channels)


def add_duplicates_(x: Tensor, source: Tensor, time: int) -> Tensor:
    """x (B, C, T, H, W) plus `source`, whose channels are repeated and unfolded into time × 2 × 2 neighbours,
    in place.

    Of the first frame of a video, which is not doubled in time, only the last neighbour is there.
    """
    missing, step = time * source.shape[2] - x.shape[2], source.shape[1] // x.shape[1]
    neighbours = list(product(range(time), range(2), range(2)))
    for k, (t, h, w) in enumerate(neighbours):
        if t >= missing:
            x[:, :, t - missing :: time, h::2, w::2] += source[:, k * step // len(neighbours) :: step]
    return x


class DownStage(nn.Module):
    def __init__(self, channels_in: int, channels: int, temporal: bool | None, layers: VAELayers):
        super().__init__()
        self.downsamples = nn.ModuleList(layers.residual_block(c, channels, layers) for c in (channels_in, channels))
        if temporal is not None:
            self.downsamples.append(Downsample(channels, temporal, layers))
        self.channels = channels
        self.time, self.space = 2 if temporal else 1, 1 if temporal is None else 2

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        shortcut = average_down(x, self.channels, self.time, self.space)
        for layer in self.downsamples:
            x = layer(x, cache)
        return x + shortcut


class UpStage(nn.Module):
    def __init__(self, channels_in: int, channels: int, temporal: bool | None, layers: VAELayers):
        super().__init__()
        widths = channels_in, channels, channels
        self.upsamples = nn.ModuleList(layers.residual_block(c, channels, layers) for c in widths)
        if temporal is not None:
            self.upsamples.append(layers.upsample(channels, channels, temporal, layers))
        self.temporal = temporal

    def forward(self, x: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """The result, in the chunks of its last layer."""
        time, start = 2 if self.temporal else 1, 0
        for chunk in in_chunks(list(self.upsamples), x, cache):
            end = start + -(-chunk.shape[2] // time)
            yield chunk if self.temporal is None else add_duplicates_(chunk, x[:, :, start:end], time)
            start = end


class Encoder22(nn.Module):
    def __init__(self, config: VAEConfig, layers: VAELayers):
        super().__init__()
        widths = [config.dim * m for m in (1, *config.multipliers)]
        self.conv1 = layers.causal_conv(3 * config.pixel_fold**2, widths[0])
        self.downsamples = nn.ModuleList(
            DownStage(channels_in, channels, temporal, layers)
            for channels_in, channels, temporal in zip(widths, widths[1:], (*config.temporal_down, None), strict=False)
        )
        self.middle = Middle(widths[-1], layers)
        self.head = layers.output_head(widths[-1], 2 * config.z_channels, layers)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """One chunk of pixels (B, 3, 1 or 4, H, W) → mean and log-variance (B, 2z, 1, H/16, W/16)."""
        x = rearrange(x, "b c t (h y) (w x) -> b (c x y) t h w", x=2, y=2)
        x = self.conv1(x, cache)
        for stage in self.downsamples:
            x = stage(x, cache)
        return self.head(self.middle(x, cache), cache)


class Decoder22(nn.Module):
    def __init__(self, config: VAEConfig, layers: VAELayers):
        super().__init__()
        widths = [config.decoder_dim * m for m in (config.multipliers[-1], *config.multipliers[::-1])]
        self.conv1 = layers.causal_conv(config.z_channels, widths[0])
        self.middle = Middle(widths[0], layers)
        temporal_up = (*config.temporal_down[::-1], None)
        self.upsamples = nn.ModuleList(
            UpStage(channels_in, channels, temporal, layers)
            for channels_in, channels, temporal in zip(widths, widths[1:], temporal_up, strict=False)
        )
        self.head = layers.output_head(widths[-1], 3 * config.pixel_fold**2, layers)

    def forward(self, z: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """Latent frames (B, z, n, h, w), the first of a video alone → their pixels (B, 3, ·, 16h, 16w), in chunks."""
        x = self.middle(self.conv1(z, cache), cache)
        yield from map(partial(self.pixels, cache=cache), in_chunks(list(self.upsamples), x, cache))

    def pixels(self, x: Tensor, cache: FeatureCache) -> Tensor:
        return rearrange(self.head(x, cache), "b (c x y) t h w -> b c t (h y) (w x)", x=2, y=2)
