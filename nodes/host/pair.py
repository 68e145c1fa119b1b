"""Two experts that belong together."""

import os
import re

from ...wan_core.errors import CheckpointError
from .model import load_expert


def load_pair(high: str, low: str | None):
    """(high, low) MODELs; low is None for a single model.

    Raises:
        CheckpointError: one file twice, slots that the names say are swapped, or experts of different models.
    """
    if low is None:
        return load_expert(high), None
    if os.path.samefile(high, low):
        raise CheckpointError(
            f"{os.path.basename(high)} is in both slots", "the high-noise and the low-noise file",
            "Choose the other expert, or none in low_noise for a single model",
        )  # fmt: skip
    if _says("low", high) and _says("high", low):
        raise CheckpointError(
            f"{os.path.basename(high)} is in the high_noise slot and {os.path.basename(low)} in the low_noise slot",
            "each in its own slot", "Swap the two",
        )  # fmt: skip
    first, second = load_expert(high), load_expert(low)
    sizes = [model.model.model_config.unet_config["config"] for model in (first, second)]
    if sizes[0] != sizes[1]:
        raise CheckpointError(
            f"{os.path.basename(high)} takes {sizes[0].in_channels} channels at width {sizes[0].dim} and "
            f"{os.path.basename(low)} takes {sizes[1].in_channels} at width {sizes[1].dim}",
            "two experts of one model", "Use the two files of the same release",
        )  # fmt: skip
    return first, second


def _says(word: str, path: str) -> bool:
    name = os.path.basename(path).lower().replace("_", " ")
    return re.search(rf"(?<![a-z]){word}(?![a-z])", name) is not None
