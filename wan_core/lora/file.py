"""LoRA files of every trainer, read under the official names and put beside the weights of a transformer."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.formats import Weights, from_state_dict, open_weights
from ..checkpoints.key_maps import DIT, rename
from ..checkpoints.model_files import mentions
from ..dit import WanDiT
from ..errors import CheckpointError
from ..validate import real_number
from .compat import Sizes, base_warnings, nothing_applies, other_size

# What trainers write after a module's name → what it is.
_SUFFIXES = (
    (r"\.(?:lora_down|lora_A|lora_A\.default|lora\.down)\.weight$", "down"),
    (r"\.(?:lora_up|lora_B|lora_B\.default|lora\.up)\.weight$", "up"),
    (r"\.alpha$", "alpha"),
    (r"\.diff$", "weight"),
    (r"\.diff_b$", "bias"),
    (r"\.diff_m$", "modulation"),
    (r"\.dora_scale$", "dora"),
)
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer_2.", "transformer.", "base_model.model.")
_KOHYA = re.compile(r"^lora_unet__?")  # the second underscore is Wan-Fun's
# The CLIP branch of Wan2.1 I2V: how to know its tensors, and what diffusers calls its modules.
_WAN21_IMAGE = re.compile(r"k_img|v_img|img_emb|add_[kv]_proj|norm_added|image_embedder")
_WAN21_DIFFUSERS = (
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
)


@dataclass(frozen=True)
class Change:
    """A change of one parameter: up @ down · scale, or a whole tensor."""

    down: Tensor | None = None  # (rank, in, …)
    up: Tensor | None = None  # (out, rank, …)
    scale: float = 1.0  # alpha / rank
    whole: Tensor | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Of the parameter that it changes; (out, in) may stand for (out, in, …)."""
        return tuple(self.whole.shape) if self.whole is not None else (self.up.shape[0], *self.down.shape[1:])

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether it changes a parameter of this size."""
        return self.size == size or (
            self.whole is None and self.size[0] == size[0] and math.prod(self.size) == math.prod(size)
        )

    def full(self) -> Tensor:
        """The change as a tensor of the parameter's size, float32."""
        if self.whole is not None:
            return self.whole.float()
        return (self.up.float().flatten(1) @ self.down.float().flatten(1)) * self.scale


@dataclass(frozen=True)
class LoraReport:
    """What a LoRA file holds for one expert; as a string, one line.

    Attributes:
        tensors: how many the file has for this expert.
        unknown: those that no layout explains, or that lack their other half.
        skipped: those of the image branch that only Wan2.1 image-to-video models have.
        misfits: those for a patch embedding with other input channels, as between text- and image-to-video.
        expert: "high" or "low" of a pair, or None.
        base_warnings: sentences about a base that the file speaks of, and that this model is not.
    """

    source: str
    tensors: int
    unknown: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()
    expert: str | None = None
    base_warnings: tuple[str, ...] = ()

    @property
    def applied(self) -> int:
        return self.tensors - len(self.unknown) - len(self.skipped) - len(self.misfits)

    def __str__(self) -> str:
        line = f"{self.source}: {self.applied} of {self.tensors} tensors applied"
        if self.expert:
            line += f" to the {self.expert}-noise expert"
        if self.unknown:
            line += (
                f", {len(self.unknown)} unknown: {', '.join(self.unknown[:3])}{', …' if len(self.unknown) > 3 else ''}"
            )
        if self.misfits:
            line += f", {len(self.misfits)} for other input channels skipped: {', '.join(self.misfits)}"
        return line + (f", {len(self.skipped)} of the Wan2.1 image branch skipped" if self.skipped else "")


class Lora(NamedTuple):
    """A LoRA for one expert: official parameter name → Change, each of its parameter's size."""

    changes: Mapping[str, Change]
    report: LoraReport


def read_lora(
    source: str | Path | Mapping[str, Tensor] | Weights, model: WanDiT | Sizes, expert: str | None = None
) -> Lora:
    """A LoRA under the official names of `model`.

    Understood: official and lightx2v (`diffusion_model.…`), lora_A/lora_B, kohya and musubi (`lora_unet_…`), Wan-Fun
    (`lora_unet__…`), diffusers (`transformer.…`; `transformer_2.…` is for the low-noise expert); `.alpha`, `.diff`,
    `.diff_b`, `.diff_m`.

    Args:
        model: a transformer, or official parameter name → size.
        expert: "high" or "low" of a pair: of a file that holds both, take this one's tensors; None: all of them.
    Raises:
        CheckpointError: not a weight file, damaged, nothing in it applies, or it was made for a model of another size.
    """
    weights = (
        source
        if isinstance(source, Weights)
        else from_state_dict(source)
        if isinstance(source, Mapping)
        else open_weights(source)
    )
    sizes = model if isinstance(model, Mapping) else {name: tuple(p.shape) for name, p in model.named_parameters()}
    flat = {module.replace(".", "_"): module for module in (name.rpartition(".")[0] for name in sizes)}
    both = holds_both(weights)
    found: dict[str, dict[str, str]] = {}
    skipped, unknown, misfits, tensors = [], [], [], 0
    for name in weights:
        if both and expert is not None and name.startswith("transformer_2.") != (expert == "low"):
            continue
        tensors += 1
        target, part = _target(name, flat)
        if part is not None and target in sizes:
            found.setdefault(target, {})[part] = name
        elif _WAN21_IMAGE.search(name):
            skipped.append(name)
        else:
            unknown.append(name)
    changes = {}
    for target, parts in found.items():
        if "dora" in parts or not ("whole" in parts or {"down", "up"} <= set(parts)):
            unknown += parts.values()
            continue
        change = _change({part: weights.tensor(name) for part, name in parts.items()}, target, weights.source)
        if change.fits(sizes[target]):
            changes[target] = change
        elif target == "patch_embedding.weight" and change.size[0] == sizes[target][0]:
            misfits += parts.values()
        else:
            raise other_size(weights.source, target, change.size, sizes[target])
    if not changes:
        raise nothing_applies(weights.source, tensors, unknown)
    report = LoraReport(
        Path(weights.source).name,
        tensors,
        tuple(unknown),
        tuple(skipped),
        tuple(misfits),
        expert,
        base_warnings(weights, sizes, pair=expert is not None),
    )
    return Lora(changes, report)


def _target(name: str, flat: Mapping[str, str]) -> tuple[str, str | None]:
    """(official parameter name, down | up | alpha | dora | whole), or (…, None) for a name that no layout explains."""
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
        module = rename(module + ".", (*_WAN21_DIFFUSERS, *DIT)).removesuffix(".")
    if kind == "modulation" or (kind == "weight" and module.endswith("modulation")):
        return module if module.endswith("modulation") else f"{module}.modulation", "whole"
    if kind in ("weight", "bias"):
        return f"{module}.{kind}", "whole"
    return f"{module}.weight", kind


def _change(parts: Mapping[str, Tensor], target: str, source: str) -> Change:
    """The change of one parameter from its tensors."""
    if not all(torch.isfinite(tensor.float()).all() for tensor in parts.values()):
        raise CheckpointError(
            f"{source} has NaN or infinity in its tensors for {target}", "finite numbers", "Download it again"
        )
    if "whole" in parts:
        return Change(whole=parts["whole"])
    down, up, alpha = parts["down"], parts["up"], parts.get("alpha")
    if (
        min(down.ndim, up.ndim) < 2
        or up.shape[1] != down.shape[0]
        or not down.shape[0]
        or (alpha is not None and alpha.numel() != 1)
    ):
        raise CheckpointError(
            f"{source} is damaged: its tensors for {target} have sizes {tuple(up.shape)} and {tuple(down.shape)}",
            "(out, rank) and (rank, in)",
            "Download it again",
        )
    return Change(down, up, 1.0 if alpha is None else float(alpha) / down.shape[0])


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
        Args:
            lora: read for this model.
        """
        strength = real_number("the strength of a LoRA", strength, -100, 100)
        self._model, self._branches, self._hooks, self._before = model, [], [], {}
        for name, change in lora.changes.items():
            owner, parameter = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name)
            if change.whole is None and isinstance(owner, nn.Linear) and "blocks." in name:
                self._attach(owner, Branch(change, strength))
            else:
                self._before[name] = parameter.data
                delta = change.full().view(parameter.shape).to(parameter.device)
                self._replace(name, (parameter.float() + strength * delta).to(parameter.dtype))
        self.report = lora.report

    def _attach(self, owner: nn.Module, branch: Branch) -> None:
        if not hasattr(owner, "lora"):
            owner.lora = nn.ModuleList()
        owner.lora.append(branch)
        self._branches.append((owner, branch))
        self._hooks.append(owner.register_forward_hook(lambda layer, given, out: out + branch(given[0])))

    def _replace(self, name: str, value: Tensor) -> None:
        """A new parameter in the place of one that may be packed, whose data cannot be a plain tensor."""
        module, _, leaf = name.rpartition(".")
        owner = self._model.get_submodule(module)
        owner._parameters[leaf] = nn.Parameter(value.detach(), requires_grad=owner._parameters[leaf].requires_grad)

    def remove(self) -> None:
        """Take it out again; several LoRAs come out in the reverse order."""
        for hook in self._hooks:
            hook.remove()
        for owner, branch in self._branches:
            owner.lora = nn.ModuleList(b for b in owner.lora if b is not branch)
            if not len(owner.lora):
                del owner.lora
        for name, before in self._before.items():
            self._replace(name, before.to(self._model.get_parameter(name).device))
        self._branches, self._hooks, self._before = [], [], {}


def holds_both(weights: Weights) -> bool:
    """Whether the file holds tensors of both experts, as diffusers saves a pair."""
    return any(name.startswith("transformer_2.") for name in weights) and any(
        name.startswith("transformer.") for name in weights
    )


def target_expert(weights: Weights) -> str | None:
    """ "high" or "low" where the file is for one expert of a pair, as its name or its keys say, or None."""
    if holds_both(weights):
        return None
    return "low" if all(name.startswith("transformer_2.") for name in weights) else expert_of(weights.source)


def expert_of(path: str | Path) -> str | None:
    """ "high" or "low" as the file's name mentions, or None."""
    words = [word for word in ("high", "low") if mentions(word, Path(path).name)]
    return words[0] if len(words) == 1 else None
