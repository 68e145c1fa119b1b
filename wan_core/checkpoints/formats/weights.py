"""Named tensors of a model part, known by their headers and read when they are used."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import CheckpointError
from .mmap import map_bytes, view_bytes


class TensorInfo(NamedTuple):
    """What a header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path | None = None  # None: not in a safetensors file
    offset: int = 0  # where it starts in that file
    qtype: str = ""  # of tensors whose bytes are no plain numbers, such as "Q4_K"; `shape` is the unpacked one

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes in a safetensors file."""
        return self.parameters * self.dtype.itemsize


class Weights:
    """Named tensors of one model part, from a file, several shards or a state dict.

    Attributes:
        info: name → TensorInfo; known without reading any tensor.
        metadata: strings from the headers.
        source: the path, for messages.
        size: bytes on disk, or in memory for a state dict.
        scales: name of a packed weight → what its numbers are multiplied with.
    """

    def __init__(self, info: Mapping[str, TensorInfo], places: Mapping, metadata, source: str, size: int):
        self.info, self.metadata, self.source, self.size = dict(info), dict(metadata), source, size
        # Of tensors that are not in safetensors files: name → (the mapping they are in, their name there).
        self._places = dict(places)
        self._open: dict[Path, Tensor] = {}
        self.scales: dict[str, Tensor] = {}
        suffix = Path(source).suffix.lower().lstrip(".")
        self.format = "pth" if suffix in ("pt", "bin", "ckpt") else suffix

    @classmethod
    def joined(cls, parts: Sequence["Weights"], source: str) -> "Weights":
        """Files with different names in them, as one."""
        info, places, metadata = {}, {}, {}
        for part in parts:
            info |= part.info
            places |= part._places
            metadata |= part.metadata
        return cls(info, places, metadata, source, sum(part.size for part in parts))

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

    def mapped(self, name: str) -> Tensor:
        """The tensor as it lies in the file; its pages are read when it is used."""
        info = self.info[name]
        if info.file is None:
            source, stored = self._places[name]
            return source[stored]
        if info.file not in self._open:
            self._open[info.file] = map_bytes(info.file, 0, info.file.stat().st_size)
        return view_bytes(self._open[info.file][info.offset : info.offset + info.size], info.dtype, info.shape)

    def read(self, name: str) -> Tensor:
        """The tensor through a mapping of its own, so that its pages are given back together with it."""
        info = self.info[name]
        if info.file is None:
            source, stored = self._places[name]
            return getattr(source, "read", source.__getitem__)(stored)
        return view_bytes(map_bytes(info.file, info.offset, info.size), info.dtype, info.shape)

    def tensor(self, name: str, *, transient: bool = False) -> Tensor:
        """The tensor, memory-mapped; a transient one through a mapping of its own."""
        return self.read(name) if transient else self.mapped(name)

    def metadata_array(self, key: str) -> list | None:
        """A list of strings or numbers from the header, or None."""
        file = next((file for file, _ in self._places.values()), None)
        return file.array(key) if file is not None and hasattr(file, "array") else None

    def renamed(self, names: Mapping[str, str]) -> "Weights":
        """Only the tensors in `names` (ours → theirs), under our names."""
        return Weights(
            {ours: self.info[theirs] for ours, theirs in names.items()},
            {ours: self._places[theirs] for ours, theirs in names.items() if theirs in self._places},
            self.metadata,
            self.source,
            self.size,
        )


def from_state_dict(state: Mapping[str, Tensor], source: str = "the state dict") -> Weights:
    wrong = next((name for name, t in state.items() if not isinstance(t, Tensor)), None)
    if wrong is not None:
        raise CheckpointError(f"{source} has a {type(state[wrong]).__name__} under {wrong!r}", "tensors alone")
    state = {name: t.detach() for name, t in state.items()}
    info = {name: TensorInfo(t.dtype, tuple(t.shape)) for name, t in state.items()}
    return Weights(info, {name: (state, name) for name in info}, {}, source, sum(t.nbytes for t in state.values()))
