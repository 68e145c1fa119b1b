"""LoRA files as patches of MODELs from any loader."""

import logging
from typing import NamedTuple

import comfy.lora
import torch

from ...wan_core.checkpoints.formats import Weights, open_weights
from ...wan_core.errors import InputError
from ...wan_core.lora.file import Change, holds_both, read_lora, target_expert
from ...wan_core.validate import real_number
from .model import HostDiT
from .modulation import keep_in_runs

PREFIX = "diffusion_model."
STRONGEST = 100.0


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
    sizes = {who: sizes_of(model, f"{who}_noise") for who, model in models.items()}
    lines = []
    for row in rows:
        weights = open_weights(row.path)
        strengths = {who: real_number(f"strength_{who}", getattr(row, who), -STRONGEST, STRONGEST) for who in models}
        both, used = holds_both(weights), [who for who in models if strengths[who]]
        if low is not None and not both:
            lines += _wrong_expert(weights, strengths)
        base_warnings = []
        for who in used:
            lora = read_lora(weights, sizes[who], who if both or low is not None else None)
            models[who] = patched(models[who], lora.changes, strengths[who])
            base_warnings += [doubt for doubt in lora.report.base_warnings if doubt not in base_warnings]
            lines.append(str(lora.report))
        lines += [f"Warning: {doubt}." for doubt in base_warnings]
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
    kept = model.model_state_dict(PREFIX)
    sizes = {
        name: tuple(p.shape) for name, p in model.model.diffusion_model.named_parameters() if PREFIX + name in kept
    }
    if "head.modulation" not in sizes:
        raise InputError(
            f"{slot} is a {type(model.model).__name__} MODEL", "a Wan MODEL", "Connect the experts of a Wan loader"
        )
    return sizes


def patched(model, changes: dict[str, Change], strength: float):
    """A clone of the MODEL with the changes as patches: ComfyUI offloads, casts and quantises around them."""
    state, keys = {}, {}
    for name, change in changes.items():
        keys[name] = PREFIX + name
        if change.whole is not None:
            state[f"{name}.diff"] = change.whole
        else:
            state |= {f"{name}.lora_up.weight": change.up, f"{name}.lora_down.weight": change.down}
            state[f"{name}.alpha"] = torch.tensor(change.scale * change.down.shape[0])
    clone = model.clone()
    clone.add_patches(comfy.lora.load_lora(state, keys), strength)
    if any(name.endswith("modulation") for name in changes) and not isinstance(model.model.diffusion_model, HostDiT):
        keep_in_runs(clone)
    return clone


def _wrong_expert(weights: Weights, strengths: dict[str, float]) -> list[str]:
    """A warning where a file that is for one expert goes to the other one."""
    said = target_expert(weights)
    other = {"high": "low", "low": "high"}.get(said)
    if other is None or not strengths[other]:
        return []
    return [
        f"Warning: {_name(weights)} says that it is for the {said}-noise expert: set strength_{other} to 0, "
        f"and give the {other}-noise expert its own file in another row."
    ]


def _name(weights: Weights) -> str:
    return weights.source.replace("\\", "/").rpartition("/")[2]
