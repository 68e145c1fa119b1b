"""Writing weight files: under a name of their own until they are whole."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import WriteError, excerpt


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """A safetensors file.

    Raises:
        WriteError: the disk is full, or the system refuses; a file that was there before is as it was.
    """
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with _whole(Path(path)) as part:
        save_file(state, part)


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """A file of `torch.save`, for `training.run.read_state`. Raises as `write_tensors`."""
    with _whole(path) as part:
        torch.save(state, part)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write a file to that takes the name `path` afterwards."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError: all that torch makes of a full disk
        with suppress(OSError):
            part.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or excerpt(error, 120)
        raise WriteError(
            f"{path} cannot be written ({why})",
            "a folder that can be written to, and space on its disk",
            "Free some space; a run that is started again with the same command goes on from its last checkpoint",
        ) from error
