"""Encoder and decoder of the Wan 2.1 VAE: 16 channels, 4×8×8. Source: Wan2.2 wan/modules/vae2_1.py."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from ..config import VAEConfig
from .layers import Downsample, FeatureCache, Middle, VAELayers, in_chunks


class Encoder21(nn.Module):
    def __init__(self, config: VAEConfig, layers: VAELayers):
        super().__init__()
        widths = [config.dim * m for m in (1, *config.multipliers)]
        self.conv1 = layers.causal_conv(3, widths[0])
        self.downsamples = nn.ModuleList()
        for stage, (channels_in, channels) in enumerate(pairwise(widths)):
            self.downsamples += [layers.residual_block(c, channels, layers) for c in (channels_in, channels)]
            if stage < len(config.temporal_down):
                self.downsamples.append(Downsample(channels, config.temporal_down[stage], layers))
        self.middle = Middle(widths[-1], layers)
        self.head = layers.output_head(widths[-1], 2 * config.z_channels, layers)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """One chunk of pixels (B, 3, 1 or 4, H, W) → mean and log-variance (B, 2z, 1, H/8, W/8)."""
        x = self.conv1(x, cache)
        for layer in self.downsamples:
            x = layer(x, cache)
        return self.head(self.middle(x, cache), cache)


class Decoder21(nn.Module):
    def __init__(self, config: VAEConfig, layers: VAELayers):
        super().__init__()
        widths = [config.decoder_dim * m for m in config.multipliers[::-1]]
        self.conv1 = layers.causal_conv(config.z_channels, widths[0])
        self.middle = Middle(widths[0], layers)
        self.upsamples = nn.ModuleList()
        channels_in = widths[0]
        for stage, channels in enumerate(widths):
            self.upsamples += [layers.residual_block(c, channels, layers) for c in (channels_in, channels, channels)]
            if stage < len(config.temporal_down):
                channels_in = channels // 2
                temporal = config.temporal_down[::-1][stage]
                self.upsamples.append(layers.upsample(channels, channels_in, temporal, layers))
        self.head = layers.output_head(widths[-1], 3, layers)

    def forward(self, z: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """Latent frames (B, z, n, h, w), the first of a video alone → their pixels (B, 3, ·, 8h, 8w), in chunks."""
        x = self.middle(self.conv1(z, cache), cache)
        yield from map(partial(self.head, cache=cache), in_chunks(list(self.upsamples), x, cache))
