"""Files as tensors whose pages are read when they are used."""

import mmap
import sys
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError

# Private mappings, so that a change in place never reaches the file. Linux sets memory aside for them and refuses one
# larger than all its memory, such as 28 GB on a machine of 24, unless it is told that nothing needs to be set aside.
_NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE on x86 and ARM, for which Python has no name yet
_PRIVATE = {"access": mmap.ACCESS_COPY}
if sys.platform == "linux":
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | _NO_RESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}


def map_bytes(path: Path, start: int, size: int) -> Tensor:
    """(size,) uint8: these bytes of a file.

    Raises:
        CheckpointError: the file has been cut or taken away since its header was read.
    """
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    before = start % mmap.ALLOCATIONGRANULARITY
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), before + size, offset=start - before, **_PRIVATE)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} can no longer be read ({error})", "the file as it was a moment ago") from error
    return torch.frombuffer(view, dtype=torch.uint8, count=size, offset=before)


def view_bytes(data: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Bytes as numbers. Bytes that start at no multiple of the number's size are copied."""
    if data.storage_offset() % dtype.itemsize or data.data_ptr() % dtype.itemsize:
        data = data.clone()
    return data.view(dtype).view(shape)
