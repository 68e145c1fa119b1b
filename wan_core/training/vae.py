"""Training the video VAE: first on single frames, then on clips."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import VAEConfig
from ..cpu import make_vae
from ..flow.noise import normal
from ..vae import WanVAE
from ..vae.layers import AttentionBlock, FeatureCache, ResidualBlock, Upsample
from ..vae.losses import PatchDiscriminator, Perceptual, edge_loss, kl_to_normal, weighted_l1
from ..vae.model import regroup

LOG_VARIANCE = -20, 10  # of the posterior; beyond, exp() is 0 or far above any latent
DISCRIMINATOR_LR, DISCRIMINATOR_BETAS = 2e-4, (0.5, 0.9)  # usual for patch discriminators; less momentum than 0.9

Batch = tuple[Tensor, Tensor | None]  # video (B, 3, T, H, W) in [-1, 1], weight (B, 1, T, H, W) or None


@torch.no_grad()
def initialise_vae(vae: WanVAE, generator: torch.Generator) -> WanVAE:
    """Start as a near-linear image model, which learns flat colour within a few hundred steps.

    - Weights keep the variance of what passes (torch's default shrinks it threefold a layer, until the channel-wise
      RMS norm sees little but biases).
    - Every residual branch starts at zero; only the present frame's tap of a causal convolution does not.
    - The first convolutions have a bias, so the norms see a constant next to the signal and keep its magnitude.
    - Temporal upsampling starts by repeating frames, downsampling by keeping the last one.
    """
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            weight = module.weight
            fan_in = weight[0].numel() / (weight.shape[2] if weight.ndim == 5 else 1)
            values = normal(weight.shape, generator) / math.sqrt(fan_in)
            if weight.ndim == 5:
                values[:, :, :-1] *= 0.1
            weight.copy_(values)
            if module.bias is not None:
                module.bias.zero_()
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            module.get_parameter("residual.6.weight").zero_()
        elif isinstance(module, AttentionBlock):
            module.proj.weight.zero_()
        elif hasattr(module, "time_conv"):
            weight = module.get_parameter("time_conv.weight")  # (C or 2C, C, 3, 1, 1)
            weight.mul_(0.1)
            repeats = 2 if isinstance(module, Upsample) else 1
            weight[:, :, -1, 0, 0].add_(
                torch.eye(weight.shape[1], dtype=torch.float32, device="cpu").repeat(repeats, 1)
            )
    for part in (vae.encoder, vae.decoder):
        bias = part.get_parameter("conv1.bias")
        bias.copy_(normal(bias.shape, generator))
    z = vae.config.z_channels
    vae.conv1.weight.copy_(torch.eye(2 * z, dtype=torch.float32, device="cpu").view(2 * z, 2 * z, 1, 1, 1))
    vae.get_parameter("conv1.bias")[z:] = -4.0  # start almost without noise
    vae.conv2.weight.copy_(torch.eye(z, dtype=torch.float32, device="cpu").view(z, z, 1, 1, 1))
    vae.get_parameter("encoder.head.2.weight")[z:].mul_(0.1)
    return vae


def moments(vae: WanVAE, video: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the posterior, each (B, z, T', h, w), not normalised."""
    cache: FeatureCache = {}
    parts = [vae.conv1(vae.encoder(chunk, cache)) for chunk in regroup([video])]
    mean, logvar = torch.cat(parts, dim=2).float().chunk(2, dim=1)
    return mean, logvar.clamp(*LOG_VARIANCE)


def reconstruct(vae: WanVAE, z: Tensor) -> Tensor:
    """Latents that are not normalised → video, not clamped: a clamp has no gradient outside [-1, 1]."""
    cache: FeatureCache = {}
    chunks = [chunk for frame in z.split(1, dim=2) for chunk in vae.decoder(vae.conv2(frame), cache)]
    return torch.cat(chunks, dim=2).float()


@dataclass(frozen=True)
class VAELossWeights:
    """L1 has weight 1. `gan_from`: the step at which the discriminator joins; None: never."""

    kl: float = 1e-3
    perceptual: float = 0.5
    gan: float = 0.02
    gan_from: int | None = None


class VAELoss(nn.Module):
    """The hybrid loss of one batch.

    Args:
        perceptual: (decoded, video), both (B, 3, T, H, W) in [-1, 1] → a scalar; `per_frame` makes one of LPIPS.
    """

    def __init__(self, weights: VAELossWeights | None = None, perceptual: Perceptual = edge_loss):
        super().__init__()
        self.weights, self.perceptual = weights or VAELossWeights(), perceptual
        self.discriminator = PatchDiscriminator() if self.weights.gan_from is not None else None
        if self.discriminator is not None:
            self.optimiser = torch.optim.AdamW(
                self.discriminator.parameters(), lr=DISCRIMINATOR_LR, betas=DISCRIMINATOR_BETAS
            )

    def forward(self, vae: WanVAE, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        video, weight = batch
        mean, logvar = moments(vae, video)
        noise = normal(mean.shape, generator).to(mean)
        decoded = reconstruct(vae, mean + noise * (0.5 * logvar).exp())
        losses = {
            "l1": weighted_l1(decoded, video, weight),
            "kl": kl_to_normal(mean, logvar),
            "perceptual": self.perceptual(decoded, video),
        }
        w = self.weights
        losses["loss"] = losses["l1"] + w.kl * losses["kl"] + w.perceptual * losses["perceptual"]
        if self.discriminator is not None and w.gan_from is not None and step >= w.gan_from:
            losses["gan"] = self._adversarial(self.discriminator, video, decoded)
            losses["loss"] = losses["loss"] + w.gan * losses["gan"]
        return losses

    def _adversarial(self, discriminator: PatchDiscriminator, video: Tensor, decoded: Tensor) -> Tensor:
        """One step of the discriminator, then the decoder's term."""
        discriminator.to(video.device).requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        discriminator.discriminator_loss(video, decoded).backward()
        self.optimiser.step()
        discriminator.requires_grad_(False)
        return discriminator.generator_loss(decoded)


def new_vae(config: VAEConfig, seed: int) -> WanVAE:
    """A VAE to train from nothing."""
    return initialise_vae(make_vae(config).float(), torch.Generator().manual_seed(seed))


@torch.no_grad()
def normalise_latents(vae: WanVAE, batches: Callable[[int], Tensor], count: int) -> None:
    """Give the latents the mean and deviation that the config states, without changing what the VAE reconstructs.

    The first and the last 1×1 convolution around the latents (`conv1`, `conv2`) take up the scale and the offset, so a
    file of this VAE needs no statistics of its own.

    Args:
        batches: n → video (B, 3, T, H, W); `count` of them are measured.
    """
    measured = [moments(vae, batches(n)) for n in range(count)]
    mean = torch.cat([m.transpose(0, 1).flatten(1) for m, _ in measured], dim=1)
    noise = torch.cat([v.exp().transpose(0, 1).flatten(1) for _, v in measured], dim=1).mean(1)
    deviation = (mean.var(dim=1) + noise).sqrt()
    scale = torch.tensor(vae.config.std, dtype=mean.dtype, device=mean.device) / deviation
    offset = torch.tensor(vae.config.mean, dtype=mean.dtype, device=mean.device) - scale * mean.mean(dim=1)
    z = vae.config.z_channels
    bias = vae.get_parameter("conv1.bias")
    vae.conv1.weight[:z].mul_(scale.view(-1, 1, 1, 1, 1))
    bias[:z].mul_(scale).add_(offset)
    bias[z:].add_(2 * scale.log())
    matrix = vae.conv2.weight[:, :, 0, 0, 0] / scale
    vae.get_parameter("conv2.bias").sub_(matrix @ offset)
    vae.conv2.weight.copy_(matrix.view(z, z, 1, 1, 1))
