"""Quantised weights: fp8, scaled fp8, int8 and GGUF blocks stay packed in memory and are unpacked when a layer runs."""

import json

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..errors import CheckpointError
from .formats.ggml import FORMATS
from .formats.open import Weights

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = (".weight_scale", ".scale_weight")  # now, and before ComfyUI changed its format
_INPUT_SCALES = (".input_scale", ".scale_input")  # of fp8 matrix products, which are not computed here
_NOTE = ".comfy_quant"  # JSON about a layer, in a tensor
_NOTES = "_quantization_metadata"  # JSON about all layers, in the header
_MARKER = "scaled_fp8"
_LONGEST_NOTE = 4096  # bytes; real ones have below 100
_FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")


class QuantizedTensor(Tensor):
    """A weight that shows its unpacked shape and the dtype it is computed in, but holds packed bytes.

    `to` moves the bytes or changes the computing dtype; an embedding unpacks the rows that it looks up; every other
    operation gets the whole weight unpacked while it runs.

    Attributes:
        stored: the bytes; (blocks, bytes of a block) of a block format, else of the weight's own shape.
        scale: one factor, or one for each row; None without.
        block: a key of blocks.FORMATS, or "".
    """

    stored: Tensor
    scale: Tensor | None
    block: str

    @staticmethod
    def __new__(cls, stored: Tensor, scale: Tensor | None, block: str, shape: tuple[int, ...], dtype: torch.dtype):
        self = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=stored.device)
        self.stored, self.scale, self.block = stored, scale, block
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.stored.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def dequantize(self) -> Tensor:
        """The weight as a plain tensor, in the dtype it is computed in."""
        return self._dequantize(self.stored, self.scale).view(self.shape)

    def dequantize_rows(self, ids: Tensor) -> Tensor:
        """Some rows of a matrix, unpacked: (…) int64 → (…, columns)."""
        stored, scale, flat = self.stored, self.scale, ids.flatten()
        stored = stored.view(self.shape[0], -1, stored.shape[1])[flat].flatten(0, 1) if self.block else stored[flat]
        scale = scale[flat] if scale is not None and scale.ndim else scale
        return self._dequantize(stored, scale).view(*ids.shape, self.shape[1])

    def _dequantize(self, stored: Tensor, scale: Tensor | None) -> Tensor:
        if self.block:
            return FORMATS[self.block].dequantize(stored).to(self.dtype)
        # As ComfyUI does it, the product is taken in the computing dtype.
        return stored.to(self.dtype) if scale is None else stored.to(self.dtype) * scale.to(self.dtype)

    def _with(self, dtype: torch.dtype | None = None, **where) -> "QuantizedTensor":
        scale = None if self.scale is None else self.scale.to(**where)
        return QuantizedTensor(self.stored.to(**where), scale, self.block, self.shape, dtype or self.dtype)

    def __repr__(self) -> str:
        return f"QuantizedTensor({tuple(self.shape)}, {self.block or self.stored.dtype}, {self.dtype}, {self.device})"

    def __tensor_flatten__(self):  # torch's protocol for "which tensors are held"
        return ["stored"] if self.scale is None else ["stored", "scale"], (self.block, self.dtype)

    @classmethod
    def __tensor_unflatten__(cls, held, context, shape, stride):
        block, dtype = context
        return cls(held["stored"], held.get("scale"), block, shape, dtype)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs, first = kwargs or {}, args[0] if args else None
        if func is torch.ops.aten.detach.default:
            return first._with()
        if func.overloadpacket is torch.ops.aten.to:  # in inference mode it arrives whole
            return func.decompose(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default:
            return first._with(
                kwargs.get("dtype"), device=kwargs.get("device"), non_blocking=kwargs.get("non_blocking", False)
            )
        if func is torch.ops.aten.embedding.default and isinstance(first, QuantizedTensor):
            return first.dequantize_rows(args[1])
        if func._schema.is_mutable and isinstance(first, QuantizedTensor):
            raise TypeError("a packed weight cannot be changed in place; unpack it first")
        args, kwargs = tree_map_only(QuantizedTensor, QuantizedTensor.dequantize, (args, kwargs))
        return func(*args, **kwargs)


def mark_quantized(weights: Weights) -> Weights:
    """The weights without scales and notes, each matrix that stays packed marked as such; from the headers alone."""
    scales = {name[: -len(suffix)] + ".weight": name for name in weights for suffix in _SCALES if name.endswith(suffix)}
    beside = (*_SCALES, *_INPUT_SCALES, _NOTE)
    marked = weights.renamed(
        {name: name for name in weights if not name.endswith(beside) and name.rpartition(".")[2] != _MARKER}
    )
    for name, info in marked.info.items():
        if name in scales or (info.dtype in _FP8 and len(info.shape) == 2):
            marked.info[name] = info._replace(qtype=info.qtype or str(info.dtype).removeprefix("torch."))
    marked.scales = {name: weights.mapped(stored) for name, stored in scales.items() if name in marked}
    return marked


def check_formats(weights: Weights) -> None:
    """
    Raises:
        CheckpointError: a layer is stored in a format that only ComfyUI can dequantize.
    """
    notes = [name for name in weights if name.endswith(_NOTE)]
    try:
        if any(weights.info[name].parameters > _LONGEST_NOTE for name in notes):
            raise ValueError(f"more than {_LONGEST_NOTE} characters")
        layers = {
            name.removesuffix(_NOTE): json.loads(bytes(weights.mapped(name).flatten().tolist())) for name in notes
        }
        layers |= json.loads(weights.metadata.get(_NOTES, "{}")).get("layers", {})
        formats = {layer: (note["format"], bool(note.get("convrot"))) for layer, note in layers.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{weights.source} has notes about its quantisation that cannot be read",
            "JSON with the format of each layer",
            "Download it again",
        ) from error
    for layer, (name, rotated) in formats.items():
        if name not in _FORMATS or rotated:
            raise CheckpointError(
                f"{weights.source} stores {layer} as {name}{' with a rotation' if rotated else ''}",
                ", ".join(_FORMATS) + ", or GGUF",
                "Load this file in ComfyUI, or use another file of the same model",
            )


def quantized_weight(weights: Weights, name: str, dtype: torch.dtype, device: torch.device) -> QuantizedTensor:
    """A weight that `mark_quantized` marked, to be computed with in `dtype`.

    Raises:
        CheckpointError: its scale is of another size.
    """
    info, scale = weights.info[name], weights.scales.get(name)
    if scale is not None and scale.numel() not in (1, info.shape[0]):
        raise CheckpointError(
            f"{weights.source} has {scale.numel()} scales for {name} of shape {info.shape}",
            "one, or one for each row",
            "Load this file in ComfyUI, or use another file of the same model",
        )
    if scale is not None:
        scale = (scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1, 1)).to(device)
    block = info.qtype if info.qtype in FORMATS else ""
    return QuantizedTensor(weights.mapped(name).to(device), scale, block, info.shape, dtype)
