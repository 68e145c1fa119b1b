"""The tensors of .pth files."""

import math
from pathlib import Path
from typing import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError
from .header import refuse_stand_ins
from .weights import TensorInfo, Weights


class _Pickle(Mapping):
    """The tensors of a .pth file, mapped where its format (torch 1.6 and later) allows.

    Reading much of a mapped one opens it again, which gives back the pages read so far.
    """

    WINDOW = 64 << 20  # bytes

    def __init__(self, path: Path):
        self.path, self._read, self._fresh = path, 0, None
        self.tensors, self.mapped = _load_pickle(path)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def read(self, name: str) -> Tensor:
        if not self.mapped:
            return self.tensors.pop(name)  # nobody needs it here once it is somewhere else
        if self._fresh is None or self._read > self.WINDOW:
            self._fresh, self._read = None, 0
            self._fresh, _ = _load_pickle(self.path)
        self._read += self._fresh[name].nbytes
        return self._fresh[name]


def _load_pickle(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The named tensors, and whether they are mapped."""
    mapped = True
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:  # the format before torch 1.6 cannot be mapped
            if "mmap" not in str(error):
                raise
            state, mapped = torch.load(path, map_location="cpu", weights_only=True), False
    except Exception as error:  # a damaged pickle can fail in any way that a program can
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as plain weights",
            "a complete file that holds tensors and nothing else",
            "Download it again, or use the .safetensors version",
        ) from error
    tensors = {name: t.detach() for name, t in state.items() if isinstance(t, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors", "a state dict")
    for name, t in tensors.items():
        if math.prod(t.shape) * t.element_size() > t.untyped_storage().nbytes():
            raise CheckpointError(f"{path} claims {tuple(t.shape)} for {name}, more than it holds", "a complete file")
    return tensors, mapped


def open_pickle(path: Path) -> Weights:
    refuse_stand_ins(path)
    tensors = _Pickle(path)
    info = {name: TensorInfo(t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    return Weights(info, {name: (tensors, name) for name in info}, {}, str(path), path.stat().st_size)
