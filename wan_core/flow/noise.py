"""Random numbers, in float32 whatever torch's default is, so that a seed means the same everywhere."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normal(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, drawn on the CPU."""
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def uniform(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Numbers in [0, 1), drawn on the CPU."""
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")


def draw_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise (len(seeds), *shape) in float32, one generator a sample.

    Sample k depends on seeds[k] alone, so it equals that sample drawn by itself, bit for bit.

    Args:
        shape: (C, T, H, W) of one sample.
        device: where it is drawn; "cpu" gives the same numbers on every machine, "cuda" those of the official code.
    """
    samples = []
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(seed)
        samples.append(torch.randn(*shape, generator=generator, device=device, dtype=torch.float32))
    return torch.stack(samples)
