"""Encoder and decoder of the Wan 2.1 VAE: 16 channels, 4×8×8. Source: Wan2.2 wan/modules/vae2_1.py."""

from collections.abc import Iterator

from torch import Tensor, nn

from ..config import VAEConfig
from .layers import Downsample, FeatureCache, Middle, OutputHead, ResidualBlock, Upsample, causal, in_pieces


class Encoder21(nn.Module):
    def __init__(self, config: VAEConfig, ops):
        super().__init__()
        widths = [config.dim * m for m in (1, *config.multipliers)]
        self.conv1 = ops.Conv3d(3, widths[0], 3, padding=(0, 1, 1))
        layers = []
        for stage, (channels_in, channels) in enumerate(zip(widths, widths[1:])):
            layers += [ResidualBlock(channels_in, channels, ops), ResidualBlock(channels, channels, ops)]
            if stage < len(config.temporal_down):
                layers.append(Downsample(channels, config.temporal_down[stage], ops))
        self.downsamples = nn.ModuleList(layers)
        self.middle = Middle(widths[-1], ops)
        self.head = OutputHead(widths[-1], 2 * config.z_channels, ops)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """One chunk of pixels (B, 3, 1 or 4, H, W) → mean and log-variance (B, 2z, 1, H/8, W/8)."""
        x = causal(self.conv1, x, cache)
        for layer in self.downsamples:
            x = layer(x, cache)
        return self.head(self.middle(x, cache), cache)


class Decoder21(nn.Module):
    def __init__(self, config: VAEConfig, ops):
        super().__init__()
        widths = [config.decoder_dim * m for m in config.multipliers[::-1]]
        self.conv1 = ops.Conv3d(config.z_channels, widths[0], 3, padding=(0, 1, 1))
        self.middle = Middle(widths[0], ops)
        layers = []
        channels_in = widths[0]
        for stage, channels in enumerate(widths):
            layers += [ResidualBlock(c, channels, ops) for c in (channels_in, channels, channels)]
            if stage < len(config.temporal_down):
                channels_in = channels // 2
                layers.append(Upsample(channels, channels_in, config.temporal_down[::-1][stage], ops))
        self.upsamples = nn.ModuleList(layers)
        self.head = OutputHead(widths[-1], 3, ops)

    def forward(self, z: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """Latent frames (B, z, n, h, w), the first of a video alone → their pixels (B, 3, ·, 8h, 8w), a few frames at a time."""
        x = self.middle(causal(self.conv1, z, cache), cache)
        yield from map(lambda piece: self.head(piece, cache), in_pieces(list(self.upsamples), x, cache))
