"""Safetensors files. The safetensors library validates the header; the tensors are memory-mapped by `Weights`.

The library opens with "np", which maps the file read-only: 34.7 GB of it on a machine of 23 GB take 2 ms. With "pt" it
makes a private mapping, for which Linux has to reserve memory, and fails there.
"""

import os
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError, excerpt, quoted
from .json_file import parse_object
from .limits import LARGEST_HEADER, MOST_TENSORS, check_tensor
from .weights import TensorInfo, Weights

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


def read_safetensors(path: Path, file: BinaryIO) -> Weights:
    """
    Raises:
        CheckpointError: truncated, over-long or inconsistent.
    Source: the safetensors format description.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    try:
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length:,} bytes, where {LARGEST_HEADER:,} are plenty")
        with safe_open(path, "np"):  # types, shapes, offsets without gaps or overlaps, and the size of the file
            pass
        header = parse_object(file.read(length))  # unique names, which the library does not ask for
        metadata = header.pop("__metadata__", None) or {}
        if len(header) > MOST_TENSORS:
            raise ValueError(f"{len(header):,} tensors")
        info = {name: _tensor_info(name, entry, path, 8 + length) for name, entry in header.items()}
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is damaged or incomplete: {excerpt(error)}",
            "a complete safetensors file",
            "Download it again",
        ) from error
    return Weights(info, str(path), size, "safetensors", metadata)


def _tensor_info(name: str, entry: dict, path: Path, start: int) -> TensorInfo:
    """Of a header entry that the library has validated; `start` is where the data begin in the file."""
    check_tensor(name, entry["shape"])
    if len(entry) != 3:
        raise ValueError(f"{quoted(name, 100)} with more than dtype, shape and data_offsets")
    if entry["dtype"] not in DTYPES:
        raise ValueError(
            f"{quoted(name, 60)} of dtype {excerpt(entry['dtype'], 20)}, which is none of {', '.join(DTYPES)}"
        )
    first, end = entry["data_offsets"]
    return TensorInfo(DTYPES[entry["dtype"]], tuple(entry["shape"]), path, start + first, end - first)
