"""LoRA files of every trainer, read under the official parameter names."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checkpoints.formats import Weights, from_state_dict, open_weights
from ..checkpoints.identify import expert_from_name
from ..checkpoints.key_maps import DIT, rename
from ..errors import CheckpointError, some
from .compat import Sizes, base_warnings, nothing_applies, size_mismatch

# What trainers write after a module's name → what the tensor is.
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
# The CLIP branch of Wan2.1 I2V: how to recognise its tensors.
_WAN21_IMAGE = re.compile(r"k_img|v_img|img_emb|add_[kv]_proj|norm_added|image_embedder")


@dataclass(frozen=True)
class LowRank:
    """A change of one parameter: up @ down · scale."""

    down: Tensor  # (rank, in, …)
    up: Tensor  # (out, rank, …)
    scale: float = 1.0  # alpha / rank

    @property
    def size(self) -> tuple[int, ...]:
        """Of the parameter that it changes; (out, in) may stand for (out, in, …)."""
        return (self.up.shape[0], *self.down.shape[1:])

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether it changes a parameter of this size."""
        return self.size == size or (self.size[0] == size[0] and math.prod(self.size) == math.prod(size))

    def full(self) -> Tensor:
        """The product (out, in), float32."""
        return (self.up.float().flatten(1) @ self.down.float().flatten(1)) * self.scale


@dataclass(frozen=True)
class Difference:
    """A change of one parameter, as a tensor of the parameter's size."""

    value: Tensor

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether it changes a parameter of this size."""
        return self.size == size

    def full(self) -> Tensor:
        """The change in float32."""
        return self.value.float()


Change = LowRank | Difference


@dataclass(frozen=True)
class LoraReport:
    """What a LoRA file holds for one expert; as a string, one line.

    Attributes:
        tensors: how many the file has for this expert.
        unknown: those that no layout explains, or that lack their other half.
        skipped: those of the image branch that only Wan2.1 image-to-video models have.
        misfits: those for a patch embedding with other input channels, as between text- and image-to-video.
        expert: "high" or "low" of a pair, or None.
        base_warnings: sentences about a base that the file states, where this model is another one.
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
            line += f", {len(self.unknown)} unknown: {some(self.unknown)}"
        if self.misfits:
            line += f", {len(self.misfits)} for other input channels skipped: {some(self.misfits)}"
        if self.skipped:
            line += f", {len(self.skipped)} of the Wan2.1 image branch skipped"
        return line


class Lora(NamedTuple):
    """A LoRA for one expert: official parameter name → Change, each of its parameter's size."""

    changes: Mapping[str, Change]
    report: LoraReport


def read_lora(
    source: str | Path | Mapping[str, Tensor] | Weights, model: nn.Module | Sizes, expert: str | None = None
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
    weights = _open(source)
    sizes = model if isinstance(model, Mapping) else {name: tuple(p.shape) for name, p in model.named_parameters()}
    names = list(weights)
    if expert is not None and holds_both(weights):
        names = [name for name in names if name.startswith("transformer_2.") == (expert == "low")]
    groups, skipped, unknown = _group(names, sizes)
    changes: dict[str, Change] = {}
    misfits: list[str] = []
    for target, parts in groups.items():
        if "dora" in parts or not ("whole" in parts or {"down", "up"} <= set(parts)):
            unknown += parts.values()
            continue
        change = _change({part: weights.tensor(name) for part, name in parts.items()}, target, weights.source)
        if change.fits(sizes[target]):
            changes[target] = change
        elif target == "patch_embedding.weight" and change.size[0] == sizes[target][0]:
            misfits += parts.values()
        else:
            raise size_mismatch(weights.source, target, change.size, sizes[target])
    if not changes:
        raise nothing_applies(weights.source, len(names), unknown)
    report = LoraReport(
        source=Path(weights.source).name,
        tensors=len(names),
        unknown=tuple(unknown),
        skipped=tuple(skipped),
        misfits=tuple(misfits),
        expert=expert,
        base_warnings=base_warnings(weights, sizes, pair=expert is not None),
    )
    return Lora(changes, report)


def holds_both(weights: Weights) -> bool:
    """Whether the file holds tensors of both experts, as diffusers saves a pair."""
    return any(name.startswith("transformer_2.") for name in weights) and any(
        name.startswith("transformer.") for name in weights
    )


def target_expert(weights: Weights) -> str | None:
    """ "high" or "low" where the file's keys or name say that it is for one expert of a pair, or None."""
    if holds_both(weights):
        return None
    if all(name.startswith("transformer_2.") for name in weights):
        return "low"
    return expert_from_name(Path(weights.source).name, {})  # titles in its metadata are not asked


def _open(source: str | Path | Mapping[str, Tensor] | Weights) -> Weights:
    if isinstance(source, Weights):
        return source
    return from_state_dict(source) if isinstance(source, Mapping) else open_weights(source)


def _group(names: Iterable[str], sizes: Sizes) -> tuple[dict[str, dict[str, str]], list[str], list[str]]:
    """(parameter → part → tensor name, names of the Wan2.1 image branch, unknown names)."""
    modules = {name.rpartition(".")[0] for name in sizes}
    flat = {module.replace(".", "_"): module for module in modules}
    groups: dict[str, dict[str, str]] = {}
    skipped, unknown = [], []
    for name in names:
        target, part = _target(name, flat)
        if part is not None and target in sizes:
            groups.setdefault(target, {})[part] = name
        elif _WAN21_IMAGE.search(name):
            skipped.append(name)
        else:
            unknown.append(name)
    return groups, skipped, unknown


def _target(name: str, flat: Mapping[str, str]) -> tuple[str, str | None]:
    """(official parameter name, down | up | alpha | dora | whole), or (…, None) for a name that no layout explains.

    Args:
        flat: module name with underscores, as kohya writes it → official module name.
    """
    for pattern, part in _SUFFIXES:
        module, hits = re.subn(pattern, "", name)
        if not hits:
            continue
        module = _official_module(module, flat)
        if part == "modulation" or (part == "weight" and module.endswith("modulation")):
            return module if module.endswith("modulation") else f"{module}.modulation", "whole"
        return (f"{module}.{part}", "whole") if part in ("weight", "bias") else (f"{module}.weight", part)
    return name, None


def _official_module(module: str, flat: Mapping[str, str]) -> str:
    if _KOHYA.match(module):
        return flat.get(_KOHYA.sub("", module), module)
    for prefix in _PREFIXES:
        module = module.removeprefix(prefix)
    return rename(module + ".", DIT).removesuffix(".")


def _change(parts: Mapping[str, Tensor], target: str, source: str) -> Change:
    """The change of one parameter from its tensors."""
    if not all(torch.isfinite(tensor.float()).all() for tensor in parts.values()):
        raise CheckpointError(
            f"{source} has NaN or infinity in its tensors for {target}", "finite numbers", "Download it again"
        )
    if "whole" in parts:
        return Difference(parts["whole"])
    down, up, alpha = parts["down"], parts["up"], parts.get("alpha")
    matrices = min(down.ndim, up.ndim) >= 2 and up.shape[1] == down.shape[0] > 0
    if not matrices or (alpha is not None and alpha.numel() != 1):
        raise CheckpointError(
            f"{source} is damaged: its tensors for {target} have sizes {tuple(up.shape)} and {tuple(down.shape)}",
            "(out, rank) and (rank, in)",
            "Download it again",
        )
    return LowRank(down, up, 1.0 if alpha is None else float(alpha) / down.shape[0])
