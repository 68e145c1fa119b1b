"""Weight files through ComfyUI's reader, after a look at what they are."""

from pathlib import Path

import comfy.utils
import torch

from ...wan_core.checkpoints.formats import open_weights
from ...wan_core.errors import CheckpointError


def load_file(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header metadata.

    Raises:
        CheckpointError: a damaged file, a Git LFS pointer, a web page.
    """
    path = Path(path)
    weights = open_weights(path)  # checks the header; reads no tensor
    if weights.format == "pth":  # torch's reader, which ComfyUI calls, would run its pickle
        return {name: weights.tensor(name) for name in weights}, {}
    try:
        state, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    except Exception as error:
        raise CheckpointError(
            f"{path.name} cannot be read ({type(error).__name__})", "a complete weight file", "Download it again"
        ) from error
    return state, metadata or {}
