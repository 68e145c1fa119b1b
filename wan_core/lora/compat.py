"""Whether a LoRA was made for the model that it is given to, and what to say where it was not."""

import re
from collections.abc import Mapping
from pathlib import Path

from ..checkpoints.formats import Weights
from ..errors import CheckpointError, excerpt

Sizes = Mapping[str, tuple[int, ...]]  # official parameter name → size

_FAMILY_OF_WIDTH = {5120: "a 14B model", 3072: "the 5B", 1536: "a 1.3B model"}
# Changes that are no product of two matrices, by a part of their names.
_OTHER_KINDS = {"lokr_": "LoKr", "hada_": "LoHa", "oft_": "OFT", "dora_scale": "DoRA"}
# Bases that a file name or its metadata may state: how to recognise each, and its name in a sentence.
_BASES = {
    "t2v": (r"t2v|text[ _-]?to[ _-]?video", "text-to-video"),
    "i2v": (r"(?<!t)i2v|image[ _-]?to[ _-]?video", "image-to-video"),
    "2.1": (r"wan[ _.-]?2[ _.]?1(?!\d)", "Wan 2.1"),
    "2.2": (r"wan[ _.-]?2[ _.]?2(?!\d)", "Wan 2.2"),
}
_VERSION_KEYS = ("ss_base_model_version", "ss_output_name", "modelspec.title")
_TASK_KEYS = (*_VERSION_KEYS, "modelspec.architecture")  # musubi-tuner writes wan2.1 there for both versions


def base_warnings(weights: Weights, sizes: Sizes, pair: bool) -> tuple[str, ...]:
    """Sentences about a base that the file's name or metadata states, where the model is another one of equal sizes.

    Args:
        pair: the model is one of two experts, which only Wan 2.2 has.
    """
    task = {16: "t2v", 36: "i2v"}.get(sizes.get("patch_embedding.weight", (0, 0))[1])
    if "vace_patch_embedding.weight" in sizes:  # made from text-to-video, and given images
        task = None
    version = "2.1" if "img_emb.proj.0.weight" in sizes else "2.2" if pair else None
    warnings = (
        _base_warning(weights, ("t2v", "i2v"), _TASK_KEYS, task),
        _base_warning(weights, ("2.1", "2.2"), _VERSION_KEYS, version),
    )
    return tuple(warning for warning in warnings if warning)


def _base_warning(weights: Weights, bases: tuple[str, ...], keys: tuple[str, ...], model: str | None) -> str | None:
    """A sentence where the file states exactly one of `bases` and the model is another; None: nothing to compare."""
    name = Path(weights.source).name
    text = " ".join((name, *(weights.metadata.get(key, "") for key in keys))).lower()
    stated = [base for base in bases if re.search(_BASES[base][0], text)]
    if model is None or len(stated) != 1 or stated[0] == model:
        return None
    return (
        f"{name} says that it was made for {_BASES[stated[0]][1]}, and this is a model for {_BASES[model][1]}: "
        "its effect may be weak, or wrong in the first frames"
    )


def size_mismatch(source: str, target: str, size: tuple[int, ...], needed: tuple[int, ...]) -> CheckpointError:
    """The error for a change that does not have the size of its parameter."""
    made, this = (
        next((f" ({name})" for width, name in _FAMILY_OF_WIDTH.items() if width in dims), "") for dims in (size, needed)
    )
    return CheckpointError(
        f"{Path(source).name} changes {target} as one of size {size}{made}",
        f"size {needed}, as in this model{this}",
        "The LoRA was made for another base; use the one for this model",
    )


def nothing_applies(source: str, tensors: int, unknown: list[str]) -> CheckpointError:
    """The error for a file that changes no parameter of the model."""
    name, first = Path(source).name, unknown[0] if unknown else ""
    kind = next((kind for part, kind in _OTHER_KINDS.items() if any(part in key for key in unknown)), None)
    if kind is not None:
        return CheckpointError(
            f"{name} is a {kind}, not a LoRA", "up and down matrices", "In ComfyUI its own LoRA loader reads it"
        )
    return CheckpointError(
        f"none of the {tensors} tensors of {name} applies{first and f', such as {excerpt(first)}'}",
        "a LoRA for Wan2.1 or Wan2.2",
        "Check that the file is a LoRA of this family",
    )
