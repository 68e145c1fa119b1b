"""What lies at the start of a weight file: the safetensors header, or what a failed download left instead."""

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from .weights import TensorInfo

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format


def refuse_stand_ins(path: Path) -> None:
    """Files that a failed download leaves under the right name."""
    with path.open("rb") as file:
        start = file.read(200)
    if not start:
        raise CheckpointError(f"{path} is empty", fix="Download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes", "the weights", "Run `git lfs pull` in its folder"
        )  # fmt: skip
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page", "the weights", "Download it again; the link may need a login")


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors and metadata of a safetensors file, checked against the file's size; no tensor is read.

    Raises:
        CheckpointError: truncated, over-long or inconsistent.
    Source: the safetensors format description.
    """
    refuse_stand_ins(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size or length > _LARGEST_HEADER:
            raise _damaged(path, f"{size:,} bytes, too few for its header")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        info, spans = {}, []
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            if entry["dtype"] not in _DTYPES:
                raise CheckpointError(f"{path} has a tensor of dtype {entry['dtype']!r}", "one of " + ", ".join(_DTYPES))
            info[name] = TensorInfo(_DTYPES[entry["dtype"]], tuple(entry["shape"]), path, name)
            if not 0 <= first <= last or last - first != info[name].parameters * info[name].dtype.itemsize:
                raise ValueError(name)
            spans.append((first, last))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "a header that makes no sense") from error
    expected = 8 + length + max((last for _, last in spans), default=0)
    if size != expected:
        raise _damaged(path, f"{size:,} bytes where its header describes {expected:,}")
    try:
        safe_open(path, "pt")  # the library's own checks: overlaps, holes, unknown fields
    except SafetensorError as error:
        raise _damaged(path, f"a header that safetensors refuses ({error})") from error
    return info, metadata


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: it has {what}", "a complete safetensors file", "Download it again")
