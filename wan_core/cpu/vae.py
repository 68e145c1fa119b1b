"""The VAE on a CPU: layers that compute what those of `wan_core.vae` do, in less arithmetic and memory.

    Tiles of rows              silu(norm(x)) of a few rows of pixels at a time: what lies between stays in a core's
                               cache, and there is no tensor of it
    Pairs of frames            four products in place of six: minimal filtering F(2, 3) over time
    Nearest-neighbour, 2×2     four products with 2×2 taps at the small size in place of one with 3×3 at the large:
                               16 multiplications in place of 36
    Few output channels        the frames times the taps of all three times at once, and the cache holds those products,
                               not frames: 9 numbers a pixel in place of a frame's channels
    Filters of wide layers     a few output channels at a time, since oneDNN copies filters into an order of its own at
                               each call
    float32                    whatever dtype is stored, which is nearer to exact than torch's bfloat16

All are exact in real numbers; in float32 they differ from torch's by its rounding (2e-6 of a clip). Together they
decode in 0.66 to 0.71 of diffusers' time and 0.72 to 0.78 of ComfyUI's, in 0.43 to 0.47 of its memory
(benchmarks/results/vae.md).
Source of the filtering: Winograd, Arithmetic Complexity of Computations, 1980.
"""

from typing import cast

import torch
from torch import Tensor, nn

from ..config import VAEConfig
from ..vae import WanVAE
from ..vae.layers import CausalConv3d, FeatureCache, OutputHead, ResidualBlock, Upsample, VAELayers
from .convolution import norm_silu_conv, norm_silu_conv_few_outputs, split_conv3d, upsample_conv
from .ops import suits

LARGE = 32 * 32  # pixels of a frame from which on this pays: filters are prepared at each call
WIDE = 2**24  # weights of a convolution, 64 MiB in float32, from which on a copy of its filters is a peak of memory

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
        norm1, norm2 = self.residual["0"], self.residual["3"]
        conv1, conv2 = cast(CpuCausalConv3d, self.residual["2"]), cast(CpuCausalConv3d, self.residual["6"])
        if not pays(x, conv1, conv2):
            return super().forward(x, cache)
        h = norm_silu_conv(norm1, conv1, x, cache)
        return norm_silu_conv(norm2, conv2, h, cache, residual=self.shortcut(x))


class CpuUpsample(Upsample):
    def enlarged(self, x: Tensor) -> Tensor:
        conv = cast(CpuConv2d, self.resample["1"])
        return upsample_conv(conv, x) if pays(x, conv, scale=2) else super().enlarged(x)


class CpuOutputHead(OutputHead):
    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        norm, conv = self["0"], cast(CpuCausalConv3d, self["2"])
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
