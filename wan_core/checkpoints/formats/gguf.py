"""GGUF files: one bounded pass over the header; the tensors are memory-mapped by `Weights`.

Source: docs/gguf.md of ggml. The `gguf` package is not used because it trusts what a header states.
"""

import functools
import math
import mmap
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from ...errors import CheckpointError, excerpt, quoted
from .ggml import FORMATS
from .limits import LONGEST_NAME, MOST_DIMENSIONS, MOST_TENSORS
from .mmap import map_header
from .weights import TensorInfo, Weights

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
_QUANTIZED = {
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
_UNSUPPORTED = {
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
_LONGEST_ARRAY = 400_000  # elements; the vocabulary of umT5 has 256,384
_LARGEST_TEXT = 16 << 20  # bytes of an array of strings, and of all other metadata; umT5's vocabulary has 4 MB


def read_gguf(path: Path, file: BinaryIO) -> Weights:
    """
    Raises:
        CheckpointError: not GGUF, a version or a tensor type that is not supported, truncated, or damaged.
    """
    with map_header(path, file) as view:
        header = _Header(_Cursor(path, view))
        arrays: dict[str, Any] = {
            key: functools.partial(_read_array, path, array) for key, array in header.arrays.items()
        }
        return Weights(header.tensors, str(path), len(view), "gguf", header.metadata, arrays)


class _Array(NamedTuple):
    """A metadata array that stays in the file."""

    type: int  # of its elements
    length: int
    start: int  # in the file


class _TensorEntry(NamedTuple):
    name: str
    shape: tuple[int, ...]  # slowest dimension first
    type: int
    offset: int  # from the start of the data


def _read_array(path: Path, array: _Array) -> list:
    try:
        with path.open("rb") as file, map_header(path, file) as view:
            return _Cursor(path, view, array.start).elements(array)
    except OSError as error:
        raise CheckpointError(f"{path} can no longer be read ({error.strerror})", "the file as it was") from error


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

    def elements(self, array: _Array) -> list:
        """Of an array at the cursor's position."""
        if array.type == _STRING:
            return [self.string() for _ in range(array.length)]
        return [self.number(_NUMBERS[array.type]) for _ in range(array.length)]

    def damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: it has {what}", "a complete GGUF file", "Download it again")


class _Header:
    """What a header says.

    Attributes:
        metadata: its strings and numbers, as strings.
        arrays: where its arrays are.
        tensors: checked to lie one behind the other and to fill the file.
    """

    def __init__(self, cursor: _Cursor):
        self._cursor = cursor
        self.metadata: dict[str, str] = {}
        self._text = 0  # characters of metadata so far
        self.arrays: dict[str, _Array] = {}
        if cursor.take(4) != b"GGUF":
            raise cursor.damaged("other bytes than GGUF at its start")
        version = cursor.number("I")
        if version not in (2, 3):
            order = ", or one of big-endian order" if version > 0xFFFF else ""
            raise CheckpointError(
                f"{cursor.path} is GGUF version {version}{order}", "version 2 or 3", "Use a newer file of the model"
            )
        tensors, entries = cursor.number("Q"), cursor.number("Q")
        if max(tensors, entries) > MOST_TENSORS:
            raise cursor.damaged(f"{tensors:,} tensors and {entries:,} metadata entries")
        for _ in range(entries):
            self._read_metadata()
        self.tensors = self._locate([self._read_tensor() for _ in range(tensors)])

    def _read_metadata(self) -> None:
        cursor = self._cursor
        key, type_ = cursor.string(LONGEST_NAME), cursor.number("I")
        if key in self.metadata or key in self.arrays:
            raise cursor.damaged(f"the metadata {quoted(key)} twice")
        if type_ == _STRING:
            self.metadata[key] = cursor.string()
            self._text += len(self.metadata[key])
            if self._text > _LARGEST_TEXT:
                raise cursor.damaged(f"{self._text:,} characters of metadata")
        elif type_ in _NUMBERS:
            self.metadata[key] = str(cursor.number(_NUMBERS[type_]))
        elif type_ == _ARRAY:
            self._skip_array(key)
        else:
            raise cursor.damaged(f"metadata of type {type_} under {quoted(key)}")

    def _skip_array(self, key: str) -> None:
        cursor = self._cursor
        array = _Array(cursor.number("I"), cursor.number("Q"), cursor.position)
        if array.type not in _NUMBERS and array.type != _STRING:
            raise cursor.damaged(f"an array of type {array.type} under {quoted(key)}")
        if array.length > _LONGEST_ARRAY:
            raise cursor.damaged(f"{array.length:,} elements under {quoted(key)}")
        self.arrays[key] = array
        if array.type != _STRING:
            cursor.skip(array.length * struct.calcsize("<" + _NUMBERS[array.type]))
            return
        for _ in range(array.length):
            cursor.skip(cursor.number("Q"))
        if cursor.position - array.start > _LARGEST_TEXT:
            raise cursor.damaged(f"{cursor.position - array.start:,} bytes of strings under {quoted(key)}")

    def _read_tensor(self) -> _TensorEntry:
        cursor = self._cursor
        name, dimensions = cursor.string(LONGEST_NAME), cursor.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise cursor.damaged(f"{quoted(name)} with {dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
        if 0 in shape:
            raise cursor.damaged(f"{quoted(name)} of shape {shape}")
        return _TensorEntry(name, shape, cursor.number("I"), cursor.number("Q"))

    def _locate(self, entries: list[_TensorEntry]) -> dict[str, TensorInfo]:
        cursor, alignment = self._cursor, self.metadata.get("general.alignment", "32")
        if alignment not in _ALIGNMENTS:
            raise cursor.damaged(f"an alignment of {excerpt(alignment, 20)}")
        start = end = _aligned(cursor.position, int(alignment))
        found: dict[str, TensorInfo] = {}
        for entry in sorted(entries, key=lambda entry: entry.offset):
            if entry.name in found:
                raise cursor.damaged(f"the tensor {quoted(entry.name)} twice")
            size = self._size(entry)
            if start + entry.offset != end:
                raise cursor.damaged(f"{quoted(entry.name)} at byte {start + entry.offset:,} where {end:,} is next")
            if end + size > cursor.size:
                raise cursor.damaged(f"{cursor.size:,} bytes, too few for {quoted(entry.name)}")
            dtype, qtype = _PLAIN.get(entry.type, torch.uint8), _QUANTIZED.get(entry.type, "")
            found[entry.name] = TensorInfo(dtype, self._original_shape(entry), cursor.path, end, size, qtype)
            end = _aligned(end + size, int(alignment))
        if end < cursor.size:
            raise cursor.damaged(f"{cursor.size:,} bytes where its header describes {end:,}")
        return found

    def _size(self, entry: _TensorEntry) -> int:
        """Bytes of a tensor."""
        name, shape, type_, _ = entry
        if type_ in _PLAIN:
            return math.prod(shape) * _PLAIN[type_].itemsize
        if type_ in _UNSUPPORTED:
            raise CheckpointError(
                f"{self._cursor.path} has {_UNSUPPORTED[type_]} tensors, such as {excerpt(name)}",
                "F32, F16, BF16, " + ", ".join(FORMATS),
                "Use another file of the same model, such as its Q4_K_M",
            )
        if type_ not in _QUANTIZED:
            raise self._cursor.damaged(f"{quoted(name)} of the unknown type {type_}")
        block = FORMATS[_QUANTIZED[type_]]
        if not shape or shape[-1] % block.weights:
            raise self._cursor.damaged(
                f"{quoted(name)} of shape {shape}, which is no whole number of {_QUANTIZED[type_]} blocks"
            )
        return math.prod(shape) // block.weights * block.size

    def _original_shape(self, entry: _TensorEntry) -> tuple[int, ...]:
        """The shape before a converter flattened it, as ComfyUI's converter records it."""
        array = self.arrays.get(f"comfy.gguf.orig_shape.{entry.name}")
        if array is None:
            return entry.shape
        self._cursor.position = array.start
        original = tuple(self._cursor.elements(array)) if array.length <= MOST_DIMENSIONS else ()
        if not all(isinstance(size, int) and size >= 0 for size in original) or math.prod(original) != math.prod(
            entry.shape
        ):
            raise self._cursor.damaged(
                f"{quoted(entry.name, 100)} of shape {entry.shape} and an original shape of {quoted(original, 100)}"
            )
        return original


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
