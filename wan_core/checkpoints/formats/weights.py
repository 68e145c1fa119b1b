"""Named tensors of one model part: names, shapes and dtypes come from the headers, the numbers are memory-mapped."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ...errors import CheckpointError, excerpt, quoted
from .ggml import FORMATS
from .mmap import map_bytes

Element = TypeVar("Element", str, int, float)


class TensorInfo(NamedTuple):
    """What a header says about one tensor.

    Attributes:
        dtype, shape: of the tensor; with a GGML `qtype`, uint8 and the shape that it is dequantized to.
        file: the file that holds it; None for a tensor in memory.
        offset, nbytes: where its bytes are in that file.
        qtype: how its numbers are quantized, such as "Q4_K" or "float8_e4m3fn"; "" for plain numbers.
        stride: in elements; None for a contiguous tensor.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path | None = None
    offset: int = 0
    nbytes: int = 0
    qtype: str = ""
    stride: tuple[int, ...] | None = None

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Weights:
    """Named tensors of one model part, from a file, several shards or a state dict.

    Attributes:
        info: name → TensorInfo; known without reading any tensor.
        source: the path, for messages.
        size: bytes on disk, or in memory for a state dict.
        format: safetensors | gguf | pth | memory.
        metadata: strings from the headers.
        arrays: lists from the headers, each read when it is called; see `metadata_array`.
        memory: the tensors themselves that are not in a file.
        scales: name of a quantized weight → what its numbers are multiplied with.
    """

    info: dict[str, TensorInfo]
    source: str
    size: int
    format: str
    metadata: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, Callable[[], list]] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    scales: dict[str, Tensor] = field(default_factory=dict)
    _mappings: dict[Path, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def joined(cls, parts: Sequence["Weights"], source: str) -> "Weights":
        """Shards with different names in them, as one."""
        merged: dict[str, Any] = {
            name: {key: value for part in parts for key, value in getattr(part, name).items()}
            for name in ("info", "metadata", "arrays", "memory")
        }
        return cls(source=source, size=sum(part.size for part in parts), format=parts[0].format, **merged)

    @property
    def is_ggml(self) -> bool:
        """Whether tensors may be blocks of a GGML format, as in GGUF files."""
        return self.format == "gguf"

    @property
    def is_pickle(self) -> bool:
        """Whether torch's own loader would run the file as a program."""
        return self.format == "pth"

    def __contains__(self, name: str) -> bool:
        return name in self.info

    def __iter__(self) -> Iterator[str]:
        return iter(self.info)

    def shape(self, name: str, dims: int | None = None) -> tuple[int, ...]:
        """Shape of a tensor that has to be there, with this many dimensions."""
        found = self.info[name].shape if name in self else None
        if found is None or (dims is not None and len(found) != dims):
            what = "lacks" if found is None else f"has a tensor of shape {found} as"
            raise CheckpointError(f"{self.source} {what} {name}", "a complete checkpoint", "Download it again")
        return found

    def tensor(self, name: str, *, transient: bool = False) -> Tensor:
        """The tensor, memory-mapped from its file; one in a GGML format as blocks (n, bytes of a block) uint8.

        Args:
            transient: map its bytes on their own, so that the pages are given back with the tensor. Else all tensors
                of a file share one mapping, and the pages stay in memory as long as any of them lives.
        """
        info = self.info[name]
        if info.file is None:
            return self.memory[name]
        if transient:
            return _view(map_bytes(info.file, info.offset, info.nbytes), info)
        if info.file not in self._mappings:
            self._mappings[info.file] = map_bytes(info.file)
        data = self._mappings[info.file][info.offset : info.offset + info.nbytes]
        if data.numel() != info.nbytes:
            raise CheckpointError(f"{info.file} has become shorter", "the file as it was a moment ago")
        return _view(data, info)

    def metadata_array(self, key: str, of: type[Element]) -> list[Element]:
        """A list from the header, empty where it is not there.

        Raises:
            CheckpointError: its elements are of another type.
        """
        found = self.arrays[key]() if key in self.arrays else []
        if not all(type(element) is of for element in found):
            raise CheckpointError(
                f"{self.source} has {quoted(found, 60)} under {excerpt(key, 100)}",
                f"a list of {of.__name__}",
                "Download it again",
            )
        return found

    def renamed(self, names: Mapping[str, str]) -> "Weights":
        """Only the tensors in `names` (ours → theirs), under our names."""
        return replace(
            self,
            info={ours: self.info[theirs] for ours, theirs in names.items()},
            memory={ours: self.memory[theirs] for ours, theirs in names.items() if theirs in self.memory},
        )


def from_state_dict(state: Mapping[str, Tensor], source: str = "the state dict") -> Weights:
    """
    Raises:
        CheckpointError: a name that is no text, or something else than a plain tensor.
    """
    for name, value in state.items():
        if not isinstance(name, str):
            raise CheckpointError(
                f"{source} has the name {quoted(name)}, a {type(name).__name__}", "names that are text"
            )
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(f"{source} has a {_kind(value)} under {quoted(name)}", "plain tensors alone")
    state = {name: t.detach() for name, t in state.items()}
    info = {name: TensorInfo(t.dtype, tuple(t.shape)) for name, t in state.items()}
    return Weights(info, source, sum(t.nbytes for t in state.values()), "memory", memory=state)


def _kind(value: object) -> str:
    return f"{value.layout} tensor".removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__


def _view(data: Tensor, info: TensorInfo) -> Tensor:
    """Bytes (n,) uint8 as the tensor; copied where they do not start at a multiple of the number's size."""
    if info.qtype in FORMATS:
        return data.view(-1, FORMATS[info.qtype].size)
    if data.storage_offset() % info.dtype.itemsize or data.data_ptr() % info.dtype.itemsize:
        data = data.clone()
    numbers = data.view(info.dtype)
    return numbers.view(info.shape) if info.stride is None else numbers.as_strided(info.shape, info.stride)
