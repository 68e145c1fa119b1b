"""LoRA files as patches of MODELs from any loader, and the patches that ComfyUI leaves out: those of modulations."""

import logging
from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import comfy.lora
import comfy.utils
import torch
from comfy.patcher_extension import CallbacksMP

from ...wan_core.checkpoints.formats import Weights, open_weights
from ...wan_core.errors import InputError
from ...wan_core.lora import Change, Difference, holds_both, read_lora, target_expert
from ...wan_core.lora.apply import STRONGEST
from ...wan_core.validate import real_number
from .checks import check_wan

PREFIX = "diffusion_model."

_CALLBACKS = "wan22_modulations"
# model → its own modulations, while a run has patched ones in their place
_originals: WeakKeyDictionary[torch.nn.Module, dict[str, torch.Tensor]] = WeakKeyDictionary()


class Row(NamedTuple):
    """A LoRA file and its strength for each expert; `high` is that of a single model."""

    path: str
    high: float
    low: float


def apply_loras(high, low, rows: list[Row]) -> tuple:
    """(high, low, lines): clones of both MODELs with the LoRAs as ComfyUI's own loader patches them, and what was done.

    A MODEL that no LoRA is for is given back as it is.

    Raises:
        CheckpointError: a damaged file, one that was made for a model of another size, or one of which nothing applies.
        InputError: MODELs of another family.
    """
    models = {"high": high} | ({"low": low} if low is not None else {})
    sizes = {expert: sizes_of(model, f"{expert}_noise") for expert, model in models.items()}
    lines = []
    for row in rows:
        weights = open_weights(row.path)
        strengths = {e: real_number(f"strength_{e}", getattr(row, e), -STRONGEST, STRONGEST) for e in models}
        both, used = holds_both(weights), [expert for expert in models if strengths[expert]]
        if low is not None and not both:
            lines += _wrong_expert(weights, strengths)
        warnings = []
        for expert in used:
            lora = read_lora(weights, sizes[expert], expert if both or low is not None else None)
            models[expert] = patched(models[expert], lora.changes, strengths[expert])
            warnings += [warning for warning in lora.report.base_warnings if warning not in warnings]
            lines.append(str(lora.report))
        lines += [f"Warning: {warning}." for warning in warnings]
        if not used:
            lines.append(f"{_name(weights)}: not used, its strength is 0")
    for line in lines:
        logging.log(logging.WARNING if line.startswith("Warning") else logging.INFO, "Wan 2.2: %s", line)
    return models["high"], models.get("low"), lines


def sizes_of(model, slot: str) -> dict[str, tuple[int, ...]]:
    """Official name → size of every parameter that ComfyUI can patch in a Wan MODEL.

    Raises:
        InputError: no MODEL, or no Wan.
    """
    if model is None:
        raise InputError(
            f"{slot} is empty: the loader has none there",
            "a MODEL",
            "Connect the loader's high_noise output to high_noise",
        )
    check_wan(model, slot)
    kept = model.model_state_dict(PREFIX)
    parameters = model.model.diffusion_model.named_parameters()
    return {name: tuple(parameter.shape) for name, parameter in parameters if PREFIX + name in kept}


def patched(model, changes: Mapping[str, Change], strength: float):
    """A clone of the MODEL with the changes as patches: ComfyUI offloads, casts and quantizes around them."""
    state, keys = {}, {}
    for name, change in changes.items():
        keys[name] = PREFIX + name
        if isinstance(change, Difference):
            state[f"{name}.diff"] = change.value
        else:
            state |= {f"{name}.lora_up.weight": change.up, f"{name}.lora_down.weight": change.down}
            state[f"{name}.alpha"] = torch.tensor(change.scale * change.down.shape[0], dtype=torch.float32)
    clone = model.clone()
    clone.add_patches(comfy.lora.load_lora(state, keys), strength)
    if any(name.endswith("modulation") for name in changes):
        patch_modulations_in_runs(clone)
    return clone


def _wrong_expert(weights: Weights, strengths: Mapping[str, float]) -> list[str]:
    """A warning where a file that is for one expert goes to the other one."""
    meant = target_expert(weights)
    other = {"high": "low", "low": "high"}.get(meant)
    if other is None or not strengths[other]:
        return []
    return [
        f"Warning: {_name(weights)} says that it is for the {meant}-noise expert: set strength_{other} to 0, "
        f"and give the {other}-noise expert its own file in another row."
    ]


def _name(weights: Weights) -> str:
    return weights.source.replace("\\", "/").rpartition("/")[2]


def patch_modulations_in_runs(patcher) -> None:
    """Have every run of a MODEL and of its clones apply the patches that are for modulations.

    ComfyUI leaves out patches of parameters that lie beside submodules, which modulations are, so that LoRAs for them
    would do nothing. They are applied when a run begins and taken off when it ends.
    """
    if not patcher.get_callbacks(CallbacksMP.ON_PRE_RUN, _CALLBACKS):
        patcher.add_callback_with_key(CallbacksMP.ON_PRE_RUN, _CALLBACKS, _apply_modulations)
        patcher.add_callback_with_key(CallbacksMP.ON_CLEANUP, _CALLBACKS, _restore_modulations)


def _apply_modulations(patcher) -> None:
    _restore_modulations(patcher)
    model = patcher.model
    patches = {name: found for name, found in patcher.patches.items() if name.endswith(".modulation")}
    originals = _originals[model] = {name: comfy.utils.get_attr(model, name).data for name in patches}
    for name, original in originals.items():
        value = comfy.lora.calculate_weight(patches[name], original.float().clone(), name)
        comfy.utils.get_attr(model, name).data = value.to(original)


def _restore_modulations(patcher) -> None:
    for name, original in _originals.pop(patcher.model, {}).items():
        comfy.utils.get_attr(patcher.model, name).data = original
