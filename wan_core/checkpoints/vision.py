"""The tensors of a CLIP file that our vision encoder is built from, as transformers keeps them."""

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from ..errors import CheckpointError
from .formats import TensorInfo, Weights

_TOWER = "vision_model."
_AXES = {"embeddings.class_embedding": 1, "embeddings.position_embedding.weight": 2}  # the official file has more
Piece = tuple[str, TensorInfo, Tensor | None]  # the tensor itself where it is not in a file


def vision_tower(part: Weights) -> Weights:
    """The vision tower alone, without the layer that is not run; q, k and v apart, embeddings without leading axes.

    Raises:
        CheckpointError: fused q, k and v that are not three of one size.
    """
    layers = {
        int(found[1]) for found in (re.match(_TOWER + r"encoder\.layers\.(\d{1,4})\.", name) for name in part) if found
    }
    unused = (f"encoder.layers.{max(layers, default=0)}.", "post_layernorm.", "embeddings.position_ids")
    info: dict[str, TensorInfo] = {}
    memory: dict[str, Tensor] = {}
    for stored in part:
        name = stored.removeprefix(_TOWER)
        if name == stored or name.startswith(unused):
            continue
        for piece, piece_info, values in _pieces(name, part.info[stored], part.memory.get(stored), part.source):
            info[piece] = piece_info
            if values is not None:
                memory[piece] = values
    return replace(part, info=info, memory=memory)


def _pieces(name: str, info: TensorInfo, values: Tensor | None, source: str) -> Iterator[Piece]:
    """The tensor, or the three that are one in the official file."""
    if ".qkv_proj." in name:
        if not info.shape or info.shape[0] % 3 or info.nbytes % 3:
            raise CheckpointError(f"{source} has {name} of shape {info.shape}", "q, k and v of one size")
        shape, size = (info.shape[0] // 3, *info.shape[1:]), info.nbytes // 3
        for k, letter in enumerate("qkv"):
            third = info._replace(shape=shape, offset=info.offset + k * size, nbytes=size)
            own = None if values is None else values[k * shape[0] : (k + 1) * shape[0]]
            yield name.replace("qkv_proj", f"{letter}_proj"), third, own
        return
    extra = len(info.shape) - _AXES.get(name, len(info.shape))
    if extra > 0 and info.shape[:extra] == (1,) * extra:
        stride = None if info.stride is None else info.stride[extra:]
        info = info._replace(shape=info.shape[extra:], stride=stride)
        values = None if values is None else values.reshape(info.shape)
    yield name, info, values
