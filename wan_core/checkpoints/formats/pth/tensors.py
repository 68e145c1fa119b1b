"""The tensors of .pth files: a program and an archive that are checked first, then mapped where the format allows."""

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ....errors import CheckpointError
from ..limits import LARGEST_HEADER, MOST_TENSORS
from ..safetensors import reject_failed_download
from ..weights import TensorInfo, Weights
from .archive import read_archive
from .program import TensorView, named_tensors, run

_OLDEST_TORCH = (2, 10)  # before it, a crafted file could run code even through weights_only
_MOST_SHARING = 4  # names for the same numbers, on average; a text encoder can have three for its largest tensor


def open_pickle(path: Path) -> Weights:
    """
    Raises:
        CheckpointError: damaged, more than plain tensors, or a torch that cannot read it safely.
    """
    reject_failed_download(path)
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < _OLDEST_TORCH:
        raise CheckpointError(
            f"{path} is a pickle and this is torch {torch.__version__}",
            "torch 2.10, which reads pickles safely",
            "Update torch, or use the .safetensors version of the file",
        )
    tensors = _Pickle(path)
    return Weights(tensors.info, {name: (tensors, name) for name in tensors.info}, {}, str(path), path.stat().st_size)


class _Pickle(Mapping):
    """The tensors of a .pth file, mapped where its format (torch 1.6 and later) allows.

    Reading much of a mapped one opens it again, which gives back the pages read so far.
    """

    WINDOW = 64 << 20  # bytes

    def __init__(self, path: Path):
        self.path, self._read = path, 0
        self._tensors: dict[str, Tensor] | None = None
        self._fresh: dict[str, Tensor] | None = None
        stored, self.mapped = _check(path)
        self.info = {name: TensorInfo(tensor.dtype, tensor.shape) for name, tensor in stored.items()}

    def __getitem__(self, name: str) -> Tensor:
        if self._tensors is None or name not in self._tensors:
            self._tensors = self._load()
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.info)

    def __len__(self) -> int:
        return len(self.info)

    def read(self, name: str) -> Tensor:
        if not self.mapped:
            tensor = self[name]
            del self._tensors[name]  # nobody needs it here once it is somewhere else
            return tensor
        if self._fresh is None or self._read > self.WINDOW:
            self._fresh, self._read = None, 0
            self._fresh = self._load()
        self._read += self._fresh[name].nbytes
        return self._fresh[name]

    def _load(self) -> dict[str, Tensor]:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=self.mapped)
            return {name: state[name].detach() for name in self.info}
        except Exception as error:  # a damaged pickle can fail in any way that a program can
            raise _unreadable(self.path, "torch refuses it") from error


def _check(path: Path) -> tuple[dict[str, TensorView], bool]:
    """What the file holds, and whether it can be mapped; torch has not seen it yet."""
    try:
        with path.open("rb") as file:
            mapped = file.read(4) == b"PK\3\4"
            file.seek(0)
            tensors = named_tensors(_check_archive(path) if mapped else _check_stream(file, path.stat().st_size))
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors", "a state dict")
    total = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())
    if len(tensors) > MOST_TENSORS or total > _MOST_SHARING * path.stat().st_size:
        raise _unreadable(path, f"{len(tensors):,} tensors of {total:,} bytes, more than it holds")
    return tensors, mapped


def _check_archive(path: Path):
    """torch 1.6 and later: a zip archive of the program and one record per storage."""
    sizes, program = read_archive(path)
    if "constants.pkl" in sizes:
        raise ValueError("a TorchScript program")
    state, storages = run(io.BytesIO(program))
    for storage in storages:
        if sizes.get(f"data/{storage.key}", -1) != storage.size:
            raise ValueError(f"the numbers of storage {storage.key[:20]!r} are missing or of another size")
    return state


def _check_stream(file: BinaryIO, size: int):
    """Before torch 1.6: five pickles, the fourth the program, then each storage behind its number of elements."""
    head = io.BytesIO(file.read(LARGEST_HEADER))
    magic, version, _ = (run(head)[0] for _ in range(3))
    if (magic, version) != (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION):
        raise ValueError("no file that torch has saved")
    state, storages = run(head)
    keys, _ = run(head)
    by_key = {storage.key: storage for storage in storages}
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(by_key):
        raise ValueError("other storages than its program needs")
    position = head.tell()
    for key in keys:
        file.seek(min(position, size))
        if int.from_bytes(file.read(8), "little") != by_key[key].count:
            raise ValueError(f"the numbers of storage {key[:20]!r} are missing or of another size")
        position += 8 + by_key[key].size
    if position != size:
        raise ValueError(f"{size:,} bytes where its program describes {position:,}")
    return state


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} ({path.stat().st_size:,} bytes) cannot be read as plain weights: {why}",
        "a complete file that holds tensors and nothing else",
        "Download it again, or use the .safetensors version",
    )
