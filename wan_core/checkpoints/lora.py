"""LoRA files of every trainer, read under the official names and put beside the weights of a transformer."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

import torch.nn.functional as F
from torch import Tensor, nn

from ..dit import WanDiT
from ..errors import CheckpointError
from ..shapes import real_number
from .folder import says
from .names import DIT, rename
from .read import Weights, from_state_dict, open_weights

# What trainers write after a module's name → what it is.
_SUFFIXES = (
    (r"\.(?:lora_down|lora_A|lora_A\.default|lora\.down)\.weight$", "down"),
    (r"\.(?:lora_up|lora_B|lora_B\.default|lora\.up)\.weight$", "up"),
    (r"\.alpha$", "alpha"),
    (r"\.diff$", "weight"),
    (r"\.diff_b$", "bias"),
    (r"\.diff_m$", "modulation"),
)
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer_2.", "transformer.", "base_model.model.")
_KOHYA = re.compile(r"^lora_unet__?")  # the second underscore is Wan-Fun's
_WAN21_IMAGE = re.compile(r"k_img|v_img|img_emb|add_[kv]_proj|norm_added|image_embedder")  # of the CLIP branch of Wan2.1 I2V


@dataclass(frozen=True)
class Change:
    """A change of one parameter: up @ down · scale, or a whole tensor."""

    down: Optional[Tensor] = None  # (rank, in, …)
    up: Optional[Tensor] = None  # (out, rank, …)
    scale: float = 1.0  # alpha / rank
    whole: Optional[Tensor] = None

    def check(self, name: str, parameter: Tensor, source: str) -> None:
        """Raises CheckpointError where the change is not of the parameter's size."""
        size = tuple(self.whole.shape) if self.whole is not None else (self.up.shape[0], *self.down.shape[1:])
        if size != tuple(parameter.shape) and (self.whole is not None or math.prod(size) != parameter.numel()):
            raise CheckpointError(
                f"{source} changes {name} as one of size {size}", f"size {tuple(parameter.shape)}, as in this model",
                "The LoRA was made for another base; use the one for this model",
            )  # fmt: skip

    def full(self) -> Tensor:
        """The change as a tensor of the parameter's size, float32."""
        if self.whole is not None:
            return self.whole.float()
        return (self.up.float().flatten(1) @ self.down.float().flatten(1)) * self.scale


@dataclass(frozen=True)
class Lora:
    """What a LoRA file holds for one expert.

    Attributes:
        changes: official parameter name → Change.
        tensors: how many tensors the file has for this expert.
        skipped: tensors of the image branch that only Wan2.1 image-to-video models have.
        unknown: tensors that no layout explains, or that lack their other half.
    """

    source: str
    changes: Mapping[str, Change]
    tensors: int
    skipped: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoraReport:
    """What became of a LoRA; as a string, one line."""

    source: str
    tensors: int
    applied: int
    unknown: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{self.source}: {self.applied} of {self.tensors} tensors applied"
        if self.unknown:
            line += f", {len(self.unknown)} unknown: {', '.join(self.unknown[:3])}{', …' if len(self.unknown) > 3 else ''}"
        return line + (f", {len(self.skipped)} of the Wan2.1 image branch skipped" if self.skipped else "")


def read_lora(source: str | Path | Mapping[str, Tensor] | Weights, model: WanDiT, expert: Optional[str] = None) -> Lora:
    """A LoRA under the official names of `model`.

    Understood: official and lightx2v (`diffusion_model.…`), lora_A/lora_B, kohya and musubi (`lora_unet_…`), Wan-Fun
    (`lora_unet__…`), diffusers (`transformer.…`; `transformer_2.…` is for the low-noise expert); `.alpha`, `.diff`,
    `.diff_b`, `.diff_m`.

    Args:
        expert: "high" or "low": of a file that holds both, take this one's tensors; None: all of them.
    Raises:
        CheckpointError: not a weight file.
    """
    weights = source if isinstance(source, Weights) else from_state_dict(source) if isinstance(source, Mapping) else open_weights(source)
    parameters = dict(model.named_parameters())
    flat = {module.replace(".", "_"): module for module in (name.rpartition(".")[0] for name in parameters)}
    both = holds_both(weights)
    found: dict[str, dict[str, Tensor]] = {}
    origin: dict[str, list[str]] = {}
    skipped, unknown, tensors = [], [], 0
    for name in weights:
        if both and expert is not None and name.startswith("transformer_2.") != (expert == "low"):
            continue
        tensors += 1
        if _WAN21_IMAGE.search(name):
            skipped.append(name)
            continue
        target, part = _target(name, flat)
        if part is None or target not in parameters:
            unknown.append(name)
            continue
        found.setdefault(target, {})[part] = weights.mapped(name)
        origin.setdefault(target, []).append(name)
    changes = {}
    for target, parts in found.items():
        if "whole" in parts:
            changes[target] = Change(whole=parts["whole"])
        elif "down" in parts and "up" in parts:
            rank = parts["down"].shape[0]
            changes[target] = Change(parts["down"], parts["up"], float(parts["alpha"]) / rank if "alpha" in parts else 1.0)
        else:
            unknown += origin[target]
    return Lora(Path(weights.source).name, changes, tensors, tuple(skipped), tuple(unknown))


def _target(name: str, flat: Mapping[str, str]) -> tuple[str, Optional[str]]:
    """(official parameter name, down | up | alpha | whole), or (…, None) for a name that no layout explains."""
    for pattern, kind in _SUFFIXES:
        module, hits = re.subn(pattern, "", name)
        if hits:
            break
    else:
        return name, None
    if _KOHYA.match(module):
        module = flat.get(_KOHYA.sub("", module), module)
    else:
        for prefix in _PREFIXES:
            module = module.removeprefix(prefix)
        module = rename(module + ".", DIT).removesuffix(".")
    if kind == "modulation" or (kind == "weight" and module.endswith("modulation")):
        return module if module.endswith("modulation") else f"{module}.modulation", "whole"
    if kind in ("weight", "bias"):
        return f"{module}.{kind}", "whole"
    return f"{module}.weight", kind


class Branch(nn.Module):
    """What a LoRA adds to a linear layer's output: up(down(x)) · scale."""

    def __init__(self, change: Change, strength: float):
        super().__init__()
        self.scale = change.scale * strength
        self.register_buffer("down", change.down.flatten(1))
        self.register_buffer("up", change.up.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype)) * self.scale


class AppliedLora:
    """A LoRA at work in a transformer; `remove()` leaves the transformer as it was.

    Low-rank changes of the blocks run beside the layers, so that mapped weights stay mapped and quantised ones stay
    packed. Everything else is small and is added to the weights.

    Attributes:
        report: how much of the file applies.
    """

    def __init__(self, model: WanDiT, lora: Lora, strength: float = 1.0):
        """
        Raises:
            CheckpointError: nothing in the file applies, or it was made for a model of another size.
        """
        strength = real_number("the strength of a LoRA", strength, -100, 100)
        parameters = dict(model.named_parameters())
        for name, change in lora.changes.items():
            change.check(name, parameters[name], lora.source)
        if not lora.changes:
            unknown = f", such as {lora.unknown[0]}" if lora.unknown else ""
            raise CheckpointError(
                f"none of the {lora.tensors} tensors of {lora.source} applies{unknown}", "a LoRA for Wan2.1 or Wan2.2",
                "Check that the file is a LoRA of this family",
            )  # fmt: skip
        self._model, self._branches, self._hooks, self._before = model, [], [], {}
        for name, change in lora.changes.items():
            owner = model.get_submodule(name.rpartition(".")[0])
            if change.whole is None and isinstance(owner, nn.Linear) and "blocks." in name:
                self._attach(owner, Branch(change, strength))
            else:
                parameter = parameters[name]
                self._before[name] = parameter.data
                delta = change.full().view(parameter.shape).to(parameter.device)
                parameter.data = (parameter.float() + strength * delta).to(parameter.dtype)
        applied = lora.tensors - len(lora.unknown) - len(lora.skipped)
        self.report = LoraReport(lora.source, lora.tensors, applied, lora.unknown, lora.skipped)

    def _attach(self, owner: nn.Module, branch: Branch) -> None:
        if not hasattr(owner, "lora"):
            owner.lora = nn.ModuleList()
        owner.lora.append(branch)
        self._branches.append((owner, branch))
        self._hooks.append(owner.register_forward_hook(lambda layer, given, out: out + branch(given[0])))

    def remove(self) -> None:
        """Take it out again; several LoRAs come out in the reverse order."""
        for hook in self._hooks:
            hook.remove()
        for owner, branch in self._branches:
            owner.lora = nn.ModuleList(b for b in owner.lora if b is not branch)
            if not len(owner.lora):
                del owner.lora
        for name, data in self._before.items():
            parameter = self._model.get_parameter(name)
            parameter.data = data.to(parameter.device)
        self._branches, self._hooks, self._before = [], [], {}


def holds_both(weights: Weights) -> bool:
    """Whether the file holds tensors of both experts, as diffusers saves a pair."""
    return any(name.startswith("transformer_2.") for name in weights) and any(name.startswith("transformer.") for name in weights)


def expert_of(path: str | Path) -> Optional[str]:
    """"high" or "low" as the file's name says, or None."""
    words = [word for word in ("high", "low") if says(word, Path(path).name)]
    return words[0] if len(words) == 1 else None
