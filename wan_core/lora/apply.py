"""LoRAs applied to transformers, and taken off again."""

import logging
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.formats import open_weights
from ..dit import WanDiT
from ..errors import InputError, quoted
from ..validate import real_number
from .file import Change, Lora, LoraReport, LowRank, read_lora, target_expert

STRONGEST = 100.0  # strengths lie between minus and plus this, as in ComfyUI's own loader

log = logging.getLogger(__name__)


class Branch(nn.Module):
    """What a LoRA adds to a linear layer's output: up(down(x)) · scale."""

    def __init__(self, change: LowRank, strength: float):
        super().__init__()
        self.scale = change.scale * strength
        self.down: Tensor
        self.up: Tensor
        self.register_buffer("down", change.down.flatten(1))  # (rank, in)
        self.register_buffer("up", change.up.flatten(1))  # (out, rank)

    def forward(self, x: Tensor) -> Tensor:  # (…, in) → (…, out)
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype)) * self.scale


class AppliedLora:
    """A LoRA at work in a transformer; `remove()` leaves the transformer as it was.

    Low-rank changes of the blocks run beside the layers, so that memory-mapped weights stay mapped and quantized ones
    stay quantized. Everything else is small and is added to the weights.

    Attributes:
        report: how much of the file applies.
    """

    def __init__(self, model: WanDiT, lora: Lora, strength: float = 1.0):
        """
        Args:
            lora: read for this model.
        """
        strength = real_number("the strength of a LoRA", strength, -STRONGEST, STRONGEST)
        self.report = lora.report
        self._model = model
        self._branches: list[tuple[nn.Module, Branch]] = []
        self._hooks: list = []
        self._originals: dict[str, Tensor] = {}
        try:
            for name, change in lora.changes.items():
                self._apply(name, change, strength)
        except BaseException:  # out of memory, say: all of it or nothing
            self.remove()
            raise

    def _apply(self, name: str, change: Change, strength: float) -> None:
        layer, parameter = self._model.get_submodule(name.rpartition(".")[0]), self._model.get_parameter(name)
        if isinstance(change, LowRank) and isinstance(layer, nn.Linear) and "blocks." in name:
            self._attach(layer, Branch(change, strength))
        else:
            delta = change.full().view(parameter.shape).to(parameter.device)
            changed = (parameter.float() + strength * delta).to(parameter.dtype)
            self._originals[name] = parameter.data
            self._replace(name, changed)

    def _attach(self, layer: nn.Module, branch: Branch) -> None:
        _branches(layer).append(branch)
        self._branches.append((layer, branch))
        self._hooks.append(layer.register_forward_hook(lambda layer, given, out: out + branch(given[0])))

    def _replace(self, name: str, value: Tensor) -> None:
        """A new Parameter, because the data of a quantized one cannot become a plain tensor."""
        module, _, leaf = name.rpartition(".")
        requires_grad = self._model.get_parameter(name).requires_grad
        setattr(self._model.get_submodule(module), leaf, nn.Parameter(value.detach(), requires_grad=requires_grad))

    def remove(self) -> None:
        """Take it off again; several LoRAs come off in the reverse order."""
        for hook in self._hooks:
            hook.remove()
        for layer, branch in self._branches:
            branches = _branches(layer)
            del branches[list(branches).index(branch)]
            if not branches:
                del layer.lora
        for name, original in self._originals.items():
            self._replace(name, original.to(self._model.get_parameter(name).device))
        self._branches, self._hooks, self._originals = [], [], {}


def _branches(layer: nn.Module) -> nn.ModuleList:
    """The branches beside a layer: a submodule of it, so that they move to a device together with it."""
    if not hasattr(layer, "lora"):
        layer.add_module("lora", nn.ModuleList())
    branches = layer.get_submodule("lora")
    assert isinstance(branches, nn.ModuleList)
    return branches


class LoraStack:
    """The LoRAs of a model's experts; several add up.

    Args:
        low: None for a single model.
    """

    def __init__(self, high: WanDiT, low: WanDiT | None = None):
        self._experts = {"high": high} | ({"low": low} if low is not None else {})
        self._applied: list[tuple[AppliedLora, str]] = []  # and its note

    @property
    def notes(self) -> tuple[str, ...]:
        """What is applied, such as "style.safetensors at 0.7 on the high-noise expert"."""
        return tuple(note for _, note in self._applied)

    def load(self, path: str | Path, expert: str | None = None, strength: float = 1.0) -> list[LoraReport]:
        """Apply a LoRA to one expert or both; on an error to none. One line a report goes to the log.

        Args:
            path: a file of any trainer; see `read_lora`.
            expert: "high", "low" or "both"; None: as the file's name or keys say, else both.
            strength: of the change; 0 does nothing, negative ones turn it around.
        Returns:
            what was applied, of each expert.
        Raises:
            CheckpointError: nothing in the file applies, or it was made for another base.
            InputError: an expert that this model does not have.
        """
        if expert not in (None, "both", *self._experts):
            raise InputError(f"expert is {quoted(expert)}", " or ".join((*self._experts, "both")))
        if not isinstance(path, str | Path):
            raise InputError(f"the LoRA is a {type(path).__name__}", "the path of a LoRA file")
        weights, pair = open_weights(path), len(self._experts) == 2
        target = expert or (target_expert(weights) if pair else None)
        chosen = [target] if target in self._experts else list(self._experts)
        loras = {name: read_lora(weights, self._experts[name], name if pair else None) for name in chosen}
        before = len(self._applied)
        try:
            for name, lora in loras.items():
                applied = AppliedLora(self._experts[name], lora, strength)
                where = f" on the {name}-noise expert" if pair else ""
                self._applied.append((applied, f"{lora.report.source} at {strength}{where}"))
        except BaseException:
            self._unload(before)
            raise
        for lora in loras.values():
            log.log(logging.WARNING if lora.report.unknown else logging.INFO, "%s", lora.report)
            for warning in lora.report.base_warnings:
                log.warning("%s", warning)
        return [lora.report for lora in loras.values()]

    def unload(self) -> None:
        """Leave the experts as they were loaded."""
        self._unload(0)

    def _unload(self, kept: int) -> None:
        while len(self._applied) > kept:
            self._applied.pop()[0].remove()
