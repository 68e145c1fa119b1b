"""GGUF files: a bounded pass over the header, then tensors mapped from the file.

Source: docs/gguf.md of ggml. The `gguf` package is not used because it trusts what a header claims.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import CheckpointError
from .ggml import FORMATS
from .limits import LONGEST_NAME, MOST_DIMENSIONS, MOST_TENSORS
from .mmap import map_bytes, view_bytes

_PLAIN = {
    0: torch.float32,
    1: torch.float16,
    24: torch.int8,
    25: torch.int16,
    26: torch.int32,
    27: torch.int64,
    28: torch.float64,
    30: torch.bfloat16,
}
_PACKED = {
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
}
_REFUSED = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    29: "IQ1_M",
}
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENTS = tuple(str(2**n) for n in range(3, 13))
_LONGEST_ARRAY = 2_000_000  # strings; the vocabulary of umT5 has 256,384


class GGUFTensor(NamedTuple):
    """`dtype` and `shape` (slowest dimension first) as they are after unpacking, but uint8 for a packed tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    qtype: str  # a key of blocks.FORMATS, or ""
    offset: int  # in the file
    size: int  # bytes


class GGUF:
    """A GGUF file.

    Attributes:
        tensors: name → GGUFTensor.
        metadata: the strings and numbers of the header, as strings.
    Raises:
        CheckpointError: not GGUF, a version or a format that is not supported, truncated, or damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metadata: dict[str, str] = {}
        self._arrays: dict[str, tuple[int, int, int]] = {}  # key → type of its elements, their number, where they start
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            cursor = _Cursor(path, view)
            self.tensors = self._read_header(cursor)
        self._whole: Tensor | None = None

    def __getitem__(self, name: str) -> Tensor:
        """The tensor as it lies in the file; a packed one as uint8 (blocks, bytes of a block)."""
        if self._whole is None:
            self._whole = map_bytes(self.path, 0, self.path.stat().st_size)
        tensor = self.tensors[name]
        return _view(self._whole[tensor.offset : tensor.offset + tensor.size], tensor)

    def read(self, name: str) -> Tensor:
        """The same through a mapping of its own."""
        tensor = self.tensors[name]
        return _view(map_bytes(self.path, tensor.offset, tensor.size), tensor)

    def array(self, key: str) -> list | None:
        """A list of strings or numbers from the metadata, or None."""
        if key not in self._arrays:
            return None
        kind, count, start = self._arrays[key]
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            cursor = _Cursor(self.path, view, start)
            return [cursor.string() if kind == _STRING else cursor.number(_NUMBERS[kind]) for _ in range(count)]

    def _read_header(self, cursor: "_Cursor") -> dict[str, GGUFTensor]:
        if cursor.take(4) != b"GGUF":
            raise cursor.damaged("other bytes than GGUF at its start")
        version = cursor.number("I")
        if version not in (2, 3):
            order = ", or one of big-endian order" if version > 0xFFFF else ""
            raise CheckpointError(
                f"{self.path} is GGUF version {version}{order}", "version 2 or 3", "Use a newer file of the model"
            )
        tensors, entries = cursor.number("Q"), cursor.number("Q")
        if max(tensors, entries) > MOST_TENSORS:
            raise cursor.damaged(f"{tensors:,} tensors and {entries:,} metadata entries")
        for _ in range(entries):
            self._read_entry(cursor)
        raw = [self._read_tensor(cursor) for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", "32")
        if alignment not in _ALIGNMENTS:
            raise cursor.damaged(f"an alignment of {alignment[:20]}")
        return self._place(cursor, raw, int(alignment))

    def _read_entry(self, cursor: "_Cursor") -> None:
        key, kind = cursor.string(LONGEST_NAME), cursor.number("I")
        if key in self.metadata or key in self._arrays:
            raise cursor.damaged(f"the metadata {key!r} twice")
        if kind == _STRING:
            self.metadata[key] = cursor.string()
        elif kind in _NUMBERS:
            self.metadata[key] = str(cursor.number(_NUMBERS[kind]))
        elif kind == _ARRAY:
            of, count = cursor.number("I"), cursor.number("Q")
            if of not in _NUMBERS and of != _STRING:
                raise cursor.damaged(f"an array of type {of} under {key!r}")
            self._arrays[key] = of, count, cursor.position
            if of != _STRING:
                cursor.skip(count * struct.calcsize("<" + _NUMBERS[of]))
                return
            if count > _LONGEST_ARRAY:
                raise cursor.damaged(f"{count:,} strings under {key!r}")
            for _ in range(count):
                cursor.skip(cursor.number("Q"))
        else:
            raise cursor.damaged(f"metadata of type {kind} under {key!r}")

    def _read_tensor(self, cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape with the slowest dimension first, type, offset from the start of the data."""
        name, dimensions = cursor.string(LONGEST_NAME), cursor.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise cursor.damaged(f"{name!r} with {dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
        if 0 in shape:
            raise cursor.damaged(f"{name!r} of shape {shape}")
        return name, shape, cursor.number("I"), cursor.number("Q")

    def _place(self, cursor: "_Cursor", raw: list, alignment: int) -> dict[str, GGUFTensor]:
        """The tensors, checked to lie one behind the other and to fill the file."""
        start = end = _aligned(cursor.position, alignment)
        found: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in sorted(raw, key=lambda entry: entry[3]):
            if name in found:
                raise cursor.damaged(f"the tensor {name!r} twice")
            if kind in _REFUSED:
                raise CheckpointError(
                    f"{self.path} has {_REFUSED[kind]} tensors, such as {name}",
                    "F32, F16, BF16, " + ", ".join(FORMATS),
                    "Use another file of the same model, such as its Q4_K_M",
                )
            if kind not in _PLAIN and kind not in _PACKED:
                raise cursor.damaged(f"{name!r} of the unknown type {kind}")
            size = self._bytes(cursor, name, shape, kind)
            if start + offset != end:
                raise cursor.damaged(f"{name!r} at byte {start + offset:,} where {end:,} is next")
            if end + size > cursor.size:
                raise cursor.damaged(f"{cursor.size:,} bytes, too few for {name!r}")
            qtype = _PACKED.get(kind, "")
            found[name] = GGUFTensor(
                _PLAIN.get(kind, torch.uint8), self._original_shape(cursor, name, shape), qtype, end, size
            )
            end = _aligned(end + size, alignment)
        if end < cursor.size:
            raise cursor.damaged(f"{cursor.size:,} bytes where its header describes {end:,}")
        return found

    @staticmethod
    def _bytes(cursor: "_Cursor", name: str, shape: tuple[int, ...], kind: int) -> int:
        values = math.prod(shape)
        if kind in _PLAIN:
            return values * _PLAIN[kind].itemsize
        block = FORMATS[_PACKED[kind]]
        if not shape or shape[-1] % block.weights:
            raise cursor.damaged(f"{name!r} of shape {shape}, which is no whole number of {_PACKED[kind]} blocks")
        return values // block.weights * block.size

    def _original_shape(self, cursor: "_Cursor", name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape before a converter flattened it, as ComfyUI's converter notes it down."""
        key = f"comfy.gguf.orig_shape.{name}"
        if key not in self._arrays:
            return shape
        original = tuple(self.array(key)) if self._arrays[key][1] <= MOST_DIMENSIONS else ()
        if not all(isinstance(size, int) and size >= 0 for size in original) or math.prod(original) != math.prod(shape):
            raise cursor.damaged(f"{name!r} of shape {shape} and an original shape of {original}")
        return original


def _view(data: Tensor, tensor: GGUFTensor) -> Tensor:
    """Bytes (size,) as the tensor's numbers, or as its blocks."""
    if tensor.qtype:
        return data.view(-1, FORMATS[tensor.qtype].size)
    return view_bytes(data, tensor.dtype, tensor.shape)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


class _Cursor:
    """Reads forward through a mapped file and never beyond its end."""

    def __init__(self, path: Path, view: mmap.mmap, position: int = 0):
        self.path, self._view, self.position, self.size = path, view, position, len(view)

    def skip(self, count: int) -> None:
        if count > self.size - self.position:
            raise self.damaged(f"{self.size:,} bytes, too few for its header")
        self.position += count

    def take(self, count: int) -> bytes:
        self.skip(count)
        return self._view[self.position - count : self.position]

    def number(self, code: str):
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self, longest: int = 1 << 20) -> str:
        length = self.number("Q")
        if length > longest:
            raise self.damaged(f"a string of {length:,} bytes in its header")
        return self.take(length).decode("utf-8", "replace")

    def damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: it has {what}", "a complete GGUF file", "Download it again")
