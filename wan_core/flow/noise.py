"""Starting noise that does not depend on the batch, the device or the offload mode."""

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise (len(seeds), *shape) in float32, one generator per sample.

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
