"""Memory-mapped bytes of files as tensors: pages are read from the disk when they are first used."""

import mmap
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ...errors import CheckpointError

# Private (copy-on-write) mappings, so that an in-place change never reaches the file. Linux reserves memory for them
# and refuses one that is larger than all its memory, such as 28 GB on a machine of 24, unless MAP_NORESERVE is set.
_MAP_NORESERVE = 0x4000  # on x86 and ARM; not every supported Python has a name for it
_PRIVATE: dict[str, int] = {"access": mmap.ACCESS_COPY}
if sys.platform == "linux":
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | _MAP_NORESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}


def map_header(path: Path, file: BinaryIO) -> mmap.mmap:
    """An open file, to be read from.

    Raises:
        CheckpointError: it is empty, or on a system of files that cannot be mapped.
    """
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be mapped into memory ({error})", "a regular file", "Copy it to another disk"
        ) from error


def map_bytes(path: Path, start: int = 0, size: int | None = None) -> Tensor:
    """(size,) uint8: these bytes of a file; without a size, all from `start` to its end.

    Raises:
        CheckpointError: the file has been truncated or removed since its header was read.
    """
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    before = start % mmap.ALLOCATIONGRANULARITY
    length = 0 if size is None else before + size  # 0: to the end of the file
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), length, offset=start - before, **_PRIVATE)
    except (ValueError, OSError) as error:
        raise _gone(path, error) from error
    return torch.frombuffer(view, dtype=torch.uint8, offset=before)


def read_bytes(places: Iterable[tuple[Path, int, int]]) -> Iterator[bytes]:
    """The bytes at each place (file, start, size), without a mapping; a file is opened once.

    Raises:
        CheckpointError: a file has been removed since its header was read.
    """
    with ExitStack() as stack:
        files: dict[Path, BinaryIO] = {}
        for path, start, size in places:
            try:
                if path not in files:
                    files[path] = stack.enter_context(path.open("rb", buffering=0))
                files[path].seek(start)
                found = files[path].read(size)
            except OSError as error:
                raise _gone(path, error) from error
            yield found


def _gone(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} can no longer be read ({error})", "the file as it was a moment ago")
