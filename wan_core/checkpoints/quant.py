"""Weights that stay quantized in memory (fp8, int8, GGML blocks); a layer dequantizes its own when it runs."""

import json
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..errors import CheckpointError, excerpt
from .formats import Weights
from .formats.ggml import FORMATS

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = (".weight_scale", ".scale_weight")  # now, and before ComfyUI changed its format
_INPUT_SCALES = (".input_scale", ".scale_input")  # of fp8 matrix products, which are not computed here
_LAYER_JSON = ".comfy_quant"  # about one layer, in a tensor
_HEADER_JSON = "_quantization_metadata"  # about all layers, in the header
_MARKER = "scaled_fp8"
_LONGEST_JSON = 4096  # bytes, in a tensor; real ones are below 100
_SUPPORTED = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")


class QuantizedTensor(Tensor):
    """A weight with the shape and the dtype that it is dequantized to, which holds only its quantized numbers.

    `to` moves them or changes the dtype to compute in; an embedding dequantizes the rows that it looks up; every other
    operation gets the whole weight dequantized, for as long as it runs.

    Attributes:
        stored: the numbers; blocks (n, bytes of a block) uint8 in a GGML format, else of the weight's own shape.
        scale: one factor, or one for each row; None without.
        qtype: a key of ggml.FORMATS, or "".
    """

    stored: Tensor
    scale: Tensor | None
    qtype: str

    @staticmethod
    def __new__(cls, stored: Tensor, scale: Tensor | None, qtype: str, shape: tuple[int, ...], dtype: torch.dtype):
        self = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=stored.device)
        self.stored, self.scale, self.qtype = stored, scale, qtype
        return self

    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    def _held(self) -> int:
        return self.stored.nbytes + (0 if self.scale is None else self.scale.nbytes)

    nbytes: Any = property(_held)  # of what is held: ComfyUI adds these up to know a model's size

    def dequantize(self) -> Tensor:
        """The weight as a plain tensor, in the dtype to compute in."""
        return self._dequantize(self.stored, self.scale).view(self.shape)

    def dequantize_rows(self, ids: Tensor) -> Tensor:
        """Some rows of a matrix: ids (…) int64 → (…, columns)."""
        stored, scale, flat = self.stored, self.scale, ids.flatten()
        if self.qtype and self.shape[1] % FORMATS[self.qtype].weights:  # blocks that reach over the end of a row
            return self.dequantize()[ids]
        stored = stored.view(self.shape[0], -1, stored.shape[1])[flat].flatten(0, 1) if self.qtype else stored[flat]
        scale = scale[flat] if scale is not None and scale.ndim else scale
        return self._dequantize(stored, scale).view(*ids.shape, self.shape[1])

    def _dequantize(self, stored: Tensor, scale: Tensor | None) -> Tensor:
        if self.qtype:
            return FORMATS[self.qtype].dequantize(stored).to(self.dtype)
        # The product is taken in the dtype to compute in, as ComfyUI does it.
        return stored.to(self.dtype) if scale is None else stored.to(self.dtype) * scale.to(self.dtype)

    def _with(self, dtype: torch.dtype | None = None, **where) -> "QuantizedTensor":
        scale = None if self.scale is None else self.scale.to(**where)
        return QuantizedTensor(self.stored.to(**where), scale, self.qtype, self.shape, dtype or self.dtype)

    def __repr__(self, *, tensor_contents=None):
        return f"QuantizedTensor({tuple(self.shape)}, {self.qtype or self.stored.dtype}, {self.dtype}, {self.device})"

    def __tensor_flatten__(self):  # torch's protocol for the tensors that a subclass holds
        return ["stored"] if self.scale is None else ["stored", "scale"], (self.qtype, self.dtype)

    @classmethod
    def __tensor_unflatten__(cls, held, context, shape, stride):
        qtype, dtype = context
        return cls(held["stored"], held.get("scale"), qtype, shape, dtype)

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
            raise TypeError("a quantized weight cannot be changed in place; dequantize it first")
        args, kwargs = tree_map_only(QuantizedTensor, QuantizedTensor.dequantize, (args, kwargs))
        return func(*args, **kwargs)


def mark_quantized(weights: Weights) -> Weights:
    """The weights without scales and other tensors about quantization, each quantized matrix with its `qtype`."""
    scales = {name[: -len(suffix)] + ".weight": name for name in weights for suffix in _SCALES if name.endswith(suffix)}
    beside = (*_SCALES, *_INPUT_SCALES, _LAYER_JSON)
    kept = weights.renamed(
        {name: name for name in weights if not name.endswith(beside) and name.rpartition(".")[2] != _MARKER}
    )
    quantized = {
        name: info._replace(qtype=info.qtype or str(info.dtype).removeprefix("torch."))
        for name, info in kept.info.items()
        if name in scales or (info.dtype in _FP8 and len(info.shape) == 2)
    }
    return replace(
        kept,
        info=kept.info | quantized,
        scales={name: weights.tensor(stored) for name, stored in scales.items() if name in kept},
    )


def check_quantization(weights: Weights) -> None:
    """
    Raises:
        CheckpointError: a layer is stored in a format that only ComfyUI can dequantize.
    """
    for layer, quant in foreign_layers(weights).items():
        raise CheckpointError(
            f"{weights.source} stores {excerpt(layer, 100)} as {excerpt(quant, 80)}",
            ", ".join(_SUPPORTED) + ", or GGUF",
            "Load this file in ComfyUI, where its loader node takes it, or use another file of the same model",
        )


def check_scales(weights: Weights) -> None:
    """
    Raises:
        CheckpointError: whole numbers without a scale, or a scale that is neither one number nor one for each row.
    """
    whole = next((name for name, t in weights.info.items() if not (t.qtype or t.dtype.is_floating_point)), None)
    if whole is not None:
        dtype = str(weights.info[whole].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{weights.source} stores {whole} as {dtype} without a scale", "floating-point numbers", "Download it again"
        )
    for name, scale in weights.scales.items():
        shape = weights.info[name].shape
        if scale.numel() not in (1, shape[0] if len(shape) == 2 else 1):
            raise CheckpointError(
                f"{weights.source} has {scale.numel()} scales for {name} of shape {shape}",
                "one, or one for each row of a matrix",
                "Load this file in ComfyUI, or use another file of the same model",
            )


def foreign_layers(weights: Weights) -> dict[str, str]:
    """Stored name of a layer → its format, of those that only ComfyUI can dequantize."""
    return {
        layer: f"{quant} with a rotation" if rotated else quant
        for layer, (quant, rotated) in _layer_formats(weights).items()
        if quant not in _SUPPORTED or rotated
    }


def _layer_formats(weights: Weights) -> dict[str, tuple[str, bool]]:
    """Layer → its format, and whether its numbers are rotated, as ComfyUI's quantized files state them."""
    markers = [name for name in weights if name.endswith(_LAYER_JSON)]
    try:
        if any(weights.info[name].parameters > _LONGEST_JSON for name in markers):
            raise ValueError(f"more than {_LONGEST_JSON} characters")
        layers = {
            name.removesuffix(_LAYER_JSON): json.loads(bytes(weights.tensor(name).flatten().tolist()))
            for name in markers
        }
        if _HEADER_JSON in weights.metadata:
            layers |= json.loads(weights.metadata[_HEADER_JSON])["layers"]
        return {layer: (quant["format"], _is_rotated(quant)) for layer, quant in layers.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{weights.source} has notes about its quantization that cannot be read",
            "JSON with the format of each layer",
            "Download it again",
        ) from error


def _is_rotated(quant: dict) -> bool:
    """ComfyUI reads the word in two places."""
    return bool(quant.get("convrot", quant.get("params", {}).get("convrot")))


def quantized_weight(weights: Weights, name: str, dtype: torch.dtype, device: torch.device) -> QuantizedTensor:
    """A weight that `mark_quantized` marked and whose scale `check_scales` has seen, to be computed with in `dtype`."""
    info, scale = weights.info[name], weights.scales.get(name)
    if scale is not None:
        scale = (scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1, 1)).to(device)
    qtype = info.qtype if info.qtype in FORMATS else ""
    return QuantizedTensor(weights.tensor(name).to(device), scale, qtype, info.shape, dtype)
