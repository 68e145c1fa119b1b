"""From the pickle of a .pth file to its tensors, which `Weights` memory-maps: torch never reads the file."""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ....errors import CheckpointError, excerpt, quoted
from ..limits import LARGEST, LARGEST_HEADER, MOST_TENSORS, check_tensor
from ..weights import TensorInfo, Weights
from .archive import read_archive
from .pickle_vm import Storage, TensorView, interpret

_MOST_SHARING = 4  # names for the same numbers, on average; a text encoder can have three for its largest tensor


def read_pth(path: Path, file: BinaryIO) -> Weights:
    """
    Raises:
        CheckpointError: damaged, or more than plain tensors.
    """
    size = os.fstat(file.fileno()).st_size
    is_archive = file.read(4) == b"PK\3\4"
    file.seek(0)
    try:
        state, starts = (_read_archive if is_archive else _read_stream)(file, size)
        tensors = state if isinstance(state, dict) else {}
        tensors = {name: value for name, value in tensors.items() if type(name) is str and type(value) is TensorView}
        info = {name: _tensor_info(name, view, path, starts[view.storage.key]) for name, view in tensors.items()}
        total = sum(tensor.parameters * tensor.dtype.itemsize for tensor in info.values())
        if len(info) > MOST_TENSORS or total > _MOST_SHARING * size:
            raise ValueError(f"{len(info):,} tensors of {total:,} bytes, more than it holds")
    except ValueError as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) cannot be read as plain weights: {excerpt(error)}",
            "a complete file that holds tensors and nothing else",
            "Download it again, or use the .safetensors version",
        ) from error
    if not info:
        raise CheckpointError(f"{path} holds no named tensors", "a state dict")
    return Weights(info, str(path), size, "pth")


def _read_archive(file: BinaryIO, size: int) -> tuple[Any, dict[str, int]]:
    """Of torch 1.6 and later, a zip archive: what its pickle makes, and where each storage starts in the file."""
    records, pickle = read_archive(file, size)
    if "constants.pkl" in records:
        raise ValueError("a TorchScript program")
    state, storages = interpret(io.BytesIO(pickle))
    for storage in storages:
        record = records.get(f"data/{storage.key}")
        if record is None or record.size != storage.nbytes:
            raise _wrong_storage(storage.key)
    return state, {storage.key: records[f"data/{storage.key}"].start for storage in storages}


def _read_stream(file: BinaryIO, size: int) -> tuple[Any, dict[str, int]]:
    """The same before torch 1.6: five pickles, the fourth the state dict, then each storage behind its length."""
    head = io.BytesIO(file.read(LARGEST_HEADER))
    magic, version, _ = (interpret(head)[0] for _ in range(3))
    if (magic, version) != (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION):
        raise ValueError("no file that torch has saved")
    state, storages = interpret(head)
    keys, _ = interpret(head)
    by_key: dict[str, Storage] = {storage.key: storage for storage in storages}
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(by_key):
        raise ValueError("other storages than its pickle needs")
    starts, position = {}, head.tell()
    for key in keys:
        file.seek(min(position, size))
        if int.from_bytes(file.read(8), "little") != by_key[key].numel:
            raise _wrong_storage(key)
        starts[key] = position + 8
        position = starts[key] + by_key[key].nbytes
    if position != size:
        raise ValueError(f"{size:,} bytes where its pickle describes {position:,}")
    return state, starts


def _wrong_storage(key: str) -> ValueError:
    return ValueError(f"the numbers of storage {quoted(key, 20)} are missing or of another size")


def _tensor_info(name: str, view: TensorView, path: Path, start: int) -> TensorInfo:
    """A tensor that lies within its storage and has numbers of its own; `start` is the storage's place in the file."""
    shape, stride, itemsize = view.shape, view.stride, view.dtype.itemsize
    check_tensor(name, shape)
    if len(stride) != len(shape) or not all(type(step) is int and 0 <= step <= LARGEST for step in stride):
        raise ValueError(f"{quoted(name, 100)} with impossible strides")
    if 0 in shape:
        return TensorInfo(view.dtype, shape, path, start)
    span = 1  # numbers from the tensor's first on that the dimensions so far reach over
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1):
        if step < span:
            raise ValueError(f"{quoted(name, 100)} of shape {shape}, more than it holds")
        span += step * (size - 1)
    if (view.offset + span) * itemsize > view.storage.nbytes:
        raise ValueError(f"{quoted(name, 100)} of shape {shape}, more than it holds")
    return TensorInfo(view.dtype, shape, path, start + view.offset * itemsize, span * itemsize, stride=stride)
