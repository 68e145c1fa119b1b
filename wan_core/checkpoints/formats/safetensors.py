"""What lies at the start of a weight file: the safetensors header, or what a failed download left instead."""

import os
import string
import struct
from pathlib import Path

import torch

from ...errors import CheckpointError, CheckpointNotFound
from .json_file import parse_object
from .limits import LARGEST_HEADER, MOST_TENSORS, check_tensor
from .weights import TensorInfo

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}
_FIELDS = {"dtype", "shape", "data_offsets"}


def reject_failed_download(path: Path) -> None:
    """Files that a failed download leaves under the right name.

    Raises:
        CheckpointError: one of them, or a file that cannot be opened.
    """
    if not os.path.isfile(path):  # a named pipe would be waited for
        raise CheckpointNotFound(f"{path} is no file", "a weight file")
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror})", "a file that you may read") from error
    if not start:
        raise CheckpointError(f"{path} is empty", fix="Download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes",
            "the weights",
            "Run `git lfs pull` in its folder",
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<!--")):
        raise CheckpointError(f"{path} is a web page", "the weights", "Download it again; the link may need a login")
    if len(start) > 8 and not start.strip(
        string.printable.encode()
    ):  # every kind of weight file has a zero byte early on
        text = " ".join(start[:60].decode().split())
        raise CheckpointError(f"{path} is a text that begins with {text!r}", "the weights", "Download it again")


def kind_by_content(path: Path) -> str | None:
    """The ending that belongs to a weight file's first bytes, or None where they say nothing."""
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"GGUF"):
        return ".gguf"
    if start.startswith(b"PK\3\4"):
        return ".pth"
    length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
    return ".safetensors" if start[8:] == b"{" and 0 < length <= LARGEST_HEADER else None


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors and metadata of a safetensors file, checked against the file's size; no tensor is read.

    Raises:
        CheckpointError: truncated, over-long or inconsistent.
    Source: the safetensors format description.
    """
    reject_failed_download(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise _damaged(path, f"{size:,} bytes, too few for its header")
        if length > LARGEST_HEADER:
            raise _damaged(path, f"a header of {length:,} bytes, where {LARGEST_HEADER:,} are plenty")
        raw = file.read(length)
    try:
        info, metadata, end = _parse(raw, path)
    except ValueError as error:
        raise _damaged(path, f"a header that makes no sense ({error})") from error
    if size != end:
        raise _damaged(path, f"{size:,} bytes where its header describes {end:,}")
    return info, metadata


def _parse(raw: bytes, path: Path) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """Tensors, metadata, and where the file has to end. Raises ValueError with what is wrong."""
    if not raw.startswith(b"{"):
        raise ValueError("no JSON object")
    header = parse_object(raw)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata other than strings")
    "".join((*metadata, *metadata.values())).encode()  # half a character cannot be encoded, nor printed later
    if len(header) > MOST_TENSORS:
        raise ValueError(f"{len(header):,} tensors")
    start = end = 8 + len(raw)
    info = {name: _parse_tensor(name, entry, path, start) for name, entry in header.items()}
    for tensor in sorted(info.values(), key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != end:
            raise ValueError(f"a tensor at byte {tensor.offset - start:,} of the data where {end - start:,} is next")
        end += tensor.size
    return info, metadata, end


def _parse_tensor(name: str, entry, path: Path, start: int) -> TensorInfo:
    if (
        not isinstance(entry, dict)
        or set(entry) != _FIELDS
        or not all(isinstance(entry[key], list) for key in ("shape", "data_offsets"))
    ):
        raise ValueError(f"{name[:100]!r} without dtype, shape and data_offsets alone")
    check_tensor(name, entry["shape"])
    dtype, offsets = entry["dtype"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!r} of a dtype other than {', '.join(DTYPES)}")
    if len(offsets) != 2 or not all(type(offset) is int and offset >= 0 for offset in offsets):
        raise ValueError(f"{name!r} at impossible offsets")
    tensor = TensorInfo(DTYPES[dtype], tuple(entry["shape"]), path, start + offsets[0])
    if offsets[1] - offsets[0] != tensor.size:
        raise ValueError(f"{name!r} of {tensor.parameters:,} values in {offsets[1] - offsets[0]:,} bytes")
    return tensor


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: it has {what}", "a complete safetensors file", "Download it again")
