"""GGUF weights under ComfyUI, which has no layout for them: the quantized bytes move, a layer dequantizes its own."""

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch

from ...wan_core.checkpoints.formats import Weights
from ...wan_core.checkpoints.quant import QuantizedTensor, quantized_weight

_CAST = comfy.ops.manual_cast


def quantized_state(weights: Weights) -> dict[str, torch.Tensor]:
    """All tensors of a GGUF file, memory-mapped; a quantized one as a `QuantizedTensor`."""
    cpu = torch.device("cpu")
    return {
        name: quantized_weight(weights, name, torch.bfloat16, cpu) if info.qtype else weights.tensor(name)
        for name, info in weights.info.items()
    }


class GGUFOps(_CAST):
    """ComfyUI's casting layers, for weights that may be quantized."""

    class Linear(_CAST.Linear):
        def forward_comfy_cast_weights(self, x):
            if not isinstance(self.weight, QuantizedTensor):
                return super().forward_comfy_cast_weights(x)
            weight = self.weight.to(x.device, x.dtype).dequantize()
            for change in self.weight_function:
                weight = change(weight)
            bias = None
            if self.bias is not None:
                bias = comfy.model_management.cast_to(self.bias, x.dtype, x.device, copy=bool(self.bias_function))
                for change in self.bias_function:
                    bias = change(bias)
            return torch.nn.functional.linear(x, weight, bias)

    class Embedding(_CAST.Embedding):
        def forward_comfy_cast_weights(self, ids, out_dtype=None):
            if not isinstance(self.weight, QuantizedTensor):
                return super().forward_comfy_cast_weights(ids, out_dtype=out_dtype)
            return self.weight.to(ids.device, out_dtype or self.weight.dtype).dequantize_rows(ids)


class GGUFModelPatcher(comfy.model_patcher.ModelPatcher):
    """LoRAs are added to a quantized weight each time it is dequantized, so that the model stays quantized."""

    def patch_weight_to_device(self, key, *args, return_weight=False, **kwargs):
        weight = comfy.utils.get_attr(self.model, key)
        if return_weight or not isinstance(weight, QuantizedTensor):
            return super().patch_weight_to_device(key, *args, return_weight=return_weight, **kwargs)
        if key in self.patches:
            layer = self.model.get_submodule(key.removesuffix(".weight"))
            layer.weight_function = [comfy.model_patcher.LowVramPatch(key, self.patches)]
        return None

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        if unpatch_weights:
            for module in self.model.modules():
                if isinstance(getattr(module, "weight", None), QuantizedTensor):
                    module.weight_function = []
        super().unpatch_model(device_to, unpatch_weights)
