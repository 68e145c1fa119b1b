"""Weight files through ComfyUI's reader, after a look at their headers; experts as MODELs, alone and in pairs."""

import json
from collections.abc import Mapping
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch

from ...wan_core.checkpoints.build import Part, check_part
from ...wan_core.checkpoints.formats import Weights, open_weights, weight_files
from ...wan_core.checkpoints.identify import expert_from_name
from ...wan_core.checkpoints.key_maps import to_official
from ...wan_core.checkpoints.model_files import check_pair
from ...wan_core.errors import CheckpointError
from .gguf import GGUFModelPatcher, GGUFOps, quantized_state
from .lora import patch_modulations_in_runs
from .model import ExpertConfig

State = dict[str, torch.Tensor]
_QUANTIZATION = "_quantization_metadata"  # header entry with the formats of all quantized layers


def load_file(source: str | Path | Weights) -> tuple[State, dict]:
    """Tensors and header metadata of a file, which may have been opened already.

    Raises:
        CheckpointError: a damaged file, a Git LFS pointer, a web page.
    """
    return _read(source if isinstance(source, Weights) else open_weights(source))


def rename_quantization(metadata: dict, names: Mapping[str, str]) -> dict:
    """The header's formats of quantized layers for tensors that were renamed, `names` being new → old.

    A header names layers as the file does, or without the file's prefix; the latter are left as they are.
    """
    if _QUANTIZATION not in metadata:
        return metadata
    formats = json.loads(metadata[_QUANTIZATION])
    layer_of = {old.rpartition(".")[0]: new.rpartition(".")[0] for new, old in names.items()}
    layers = {layer_of.get(layer, layer): form for layer, form in formats["layers"].items()}
    return metadata | {_QUANTIZATION: json.dumps(formats | {"layers": layers})}


def load_pair(high: str, low: str | None):
    """(high, low) MODELs; low is None for a single model.

    Raises:
        CheckpointError: one file or the same weights twice, slots that names or metadata say are swapped, or experts of
            different models.
    """
    if low is None:
        return load_expert(high), None
    names = Path(high).name, Path(low).name
    if Path(high).samefile(low):
        raise CheckpointError(
            f"{names[0]} is in both slots",
            "the high-noise and the low-noise file",
            "Choose the other expert, or none in low_noise for a single model",
        )
    first, second = open_weights(high), open_weights(low)
    _check_slots(names, expert_from_name(names[0], first.metadata), expert_from_name(names[1], second.metadata))
    parts = _identify(first), _identify(second)
    check_pair(*parts)
    return _build(high, first, parts[0]), _build(low, second, parts[1])


def load_expert(path: str, disable_dynamic: bool = False):
    """A MODEL.

    Args:
        path: transformer file, or folder of shards.
        disable_dynamic: ask for ComfyUI's older patcher, which some hooks need.
    Raises:
        CheckpointError: not a Wan transformer, one of a family that is not built here, incomplete, or with more tensors
            than the model has.
    """
    weights = open_weights(path)
    return _build(path, weights, _identify(weights), disable_dynamic)


def _check_slots(names: tuple[str, str], first: str | None, second: str | None) -> None:
    """Compare the slots with what the files in them say that they are: "high", "low" or nothing."""
    if (first, second) in (("low", "high"), ("low", None), (None, "high")):
        raise CheckpointError(
            f"{names[0]} is in the high_noise slot and {names[1]} in the low_noise slot",
            "each in its own slot",
            "Swap the two",
        )
    if first is not None and first == second:
        raise CheckpointError(
            f"{names[0]} and {names[1]} are both {first}-noise experts",
            "one of each",
            "Choose the other expert in one of the slots",
        )


def _identify(weights: Weights) -> Part:
    """A transformer of a family that is built here, with all its tensors and no other; from the headers."""
    return check_part(weights, "dit", in_comfyui=True)


def _build(path: str, weights: Weights, part: Part, disable_dynamic: bool = False):
    mm, is_gguf = comfy.model_management, weights.is_ggml
    state = quantized_state(part.weights) if is_gguf else _read_expert(weights)
    config = ExpertConfig(part.config)
    if is_gguf:
        config.custom_operations = GGUFOps
    config.quant_config = comfy.utils.detect_layer_quantization(state, "")
    stored = None if config.quant_config or is_gguf else comfy.utils.weight_dtype(state)
    parameters, supported = comfy.utils.calculate_parameters(state), config.supported_inference_dtypes
    device, offload = mm.get_torch_device(), mm.unet_offload_device()
    dtype = mm.unet_dtype(model_params=parameters, supported_dtypes=supported, weight_dtype=stored)
    cast = mm.unet_manual_cast(None if config.quant_config else dtype, device, supported)
    config.set_inference_dtype(dtype, cast, device=device)
    model = config.get_model(state)
    older = GGUFModelPatcher if is_gguf else comfy.model_patcher.ModelPatcher
    kind = older if is_gguf or disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=device, offload_device=offload)
    if not mm.is_device_cpu(offload):
        model.to(offload)
    model.load_model_weights(state, "", assign=is_gguf or patcher.is_dynamic())
    patcher.cached_patcher_init = (load_expert, (path,))
    patch_modulations_in_runs(patcher)
    return patcher


def _read_expert(weights: Weights) -> State:
    """Tensors under official names, as ComfyUI takes them."""
    state, metadata = _read(weights)
    names = to_official("dit", state, Path(weights.source).name)
    state = {ours: state[theirs] for ours, theirs in names.items()}
    return comfy.utils.convert_old_quants(state, "", metadata=rename_quantization(metadata, names))[0]


def _read(weights: Weights) -> tuple[State, dict]:
    """Stored tensors and header metadata, through ComfyUI's reader; torch's, which it calls, would run a pickle."""
    if weights.is_pickle:
        return {name: weights.tensor(name) for name in weights}, {}
    path, state, metadata = Path(weights.source), {}, {}
    for file in weight_files(path) if path.is_dir() else [path]:
        try:
            tensors, header = comfy.utils.load_torch_file(str(file), safe_load=True, return_metadata=True)
        except Exception as error:
            raise CheckpointError(
                f"{file.name} cannot be read ({type(error).__name__})", "a complete weight file", "Download it again"
            ) from error
        state |= tensors
        metadata |= header or {}
    return state, metadata
