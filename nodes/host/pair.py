"""Two experts that belong together."""

import os
from pathlib import Path

from ...wan_core.checkpoints.model_files import expert_from_name
from ...wan_core.errors import CheckpointError
from .model import load_expert


def load_pair(high: str, low: str | None):
    """(high, low) MODELs; low is None for a single model.

    Raises:
        CheckpointError: one file twice, slots that names or metadata say are swapped, or experts of different models.
    """
    if low is None:
        return load_expert(high), None
    if os.path.samefile(high, low):
        raise CheckpointError(
            f"{os.path.basename(high)} is in both slots",
            "the high-noise and the low-noise file",
            "Choose the other expert, or none in low_noise for a single model",
        )
    claims = expert_from_name(Path(high)), expert_from_name(Path(low))
    if claims in (("low", "high"), ("low", None), (None, "high")):
        raise CheckpointError(
            f"{os.path.basename(high)} is in the high_noise slot and {os.path.basename(low)} in the low_noise slot",
            "each in its own slot",
            "Swap the two",
        )
    if claims[0] is not None and claims[0] == claims[1]:
        raise CheckpointError(
            f"{os.path.basename(high)} and {os.path.basename(low)} are both {claims[0]}-noise experts",
            "one of each",
            "Choose the other expert in one of the slots",
        )
    first, second = load_expert(high), load_expert(low)
    sizes = [model.model.model_config.unet_config["config"] for model in (first, second)]
    if sizes[0] != sizes[1]:
        raise CheckpointError(
            f"{os.path.basename(high)} has {_size(sizes[0])}, and {os.path.basename(low)} {_size(sizes[1])}",
            "two experts of one model",
            "Use the two files of the same release",
        )
    return first, second


def _size(config) -> str:
    kind = "a VACE branch, " if config.vace_layers else ""
    return f"{kind}{config.in_channels} input channels, width {config.dim}, {config.layers} layers"
