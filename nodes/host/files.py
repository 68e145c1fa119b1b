"""Weight files through ComfyUI's reader, after a look at what they are."""

from pathlib import Path

import comfy.utils
import torch

from ...wan_core.checkpoints.formats.open import open_weights
from ...wan_core.errors import CheckpointError


def load_file(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header metadata.

    Raises:
        CheckpointError: a damaged file, a Git LFS pointer, a web page.
    """
    path = Path(path)
    open_weights(path)  # checks headers, and pickles before anything runs them; reads no tensor
    try:
        state, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    except Exception as error:  # a damaged pickle can fail in any way that a program can
        raise CheckpointError(
            f"{path.name} cannot be read ({type(error).__name__})", "a complete weight file", "Download it again"
        ) from error
    return state, metadata or {}
