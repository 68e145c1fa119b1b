"""A small random data set for trainers, and the transformer that fits it."""

import torch

from wan_core.config import DiTConfig
from wan_core.training.data import LatentDataset

CONFIG = DiTConfig(dim=128, ffn_dim=64, heads=1, layers=2, text_dim=16)


def random_dataset() -> LatentDataset:
    """Four clips with a text each, and two texts that stand for no prompt."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(4, 16, 2, 4, 4, generator=generator)
    texts = [torch.randn(n, 16, generator=generator) for n in (1, 3, 5, 2, 4, 6)]
    return LatentDataset(latents, texts, [[2], [3], [4], [5]], [0, 1])
