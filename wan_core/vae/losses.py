"""Losses that train the video VAE: L1, KL, a perceptual term, and a patch discriminator. Source: Wan report, 4.2.1."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Perceptual = Callable[[Tensor, Tensor], Tensor]  # of videos (B, 3, T, H, W), prediction and target → a scalar


def weighted_l1(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error of videos (B, 3, T, H, W); `weight` broadcasts over it and is taken relative to its mean."""
    error = (prediction - target).abs()
    return error.mean() if weight is None else (error * weight).mean() / weight.mean()


def kl_to_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mean, exp(logvar)) from N(0, 1), averaged over all latent values."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def edge_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the horizontal, vertical and temporal differences of two videos (B, 3, T, H, W)."""
    loss = prediction.new_zeros(())
    for axis in (2, 3, 4):
        if target.shape[axis] > 1:
            loss = loss + (prediction.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return loss


def per_frame(metric: Callable[[Tensor, Tensor], Tensor]) -> Perceptual:
    """A loss of videos (B, 3, T, H, W) from one of images (N, 3, H, W), such as `lpips.LPIPS(net="vgg")`."""

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        frames = (video.transpose(1, 2).flatten(0, 1) for video in (prediction, target))
        return metric(*frames).mean()

    return loss


class PatchDiscriminator(nn.Sequential):
    """Real or decoded, judged by patches of single frames: (B, 3, T, H, W) → scores (B·T, 1, h, w). Source: pix2pix."""

    def __init__(self, dim: int = 32):
        layers: list[nn.Module] = []
        channels = 3
        for width in (dim, 2 * dim, 4 * dim):
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2)]
            channels = width
        super().__init__(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, video: Tensor) -> Tensor:
        return super().forward(video.transpose(1, 2).flatten(0, 1))

    def discriminator_loss(self, real: Tensor, decoded: Tensor) -> Tensor:
        """Hinge loss of this network."""
        return F.relu(1 - self(real)).mean() + F.relu(1 + self(decoded.detach())).mean()

    def generator_loss(self, decoded: Tensor) -> Tensor:
        """What the decoder minimises: −score."""
        return -self(decoded).mean()
