"""The base that a LoRA was made for, against the model that it is given to."""

import re
from collections.abc import Mapping
from pathlib import Path

from ..checkpoints.formats import Weights
from ..errors import CheckpointError

Sizes = Mapping[str, tuple[int, ...]]  # official parameter name → size

_WIDTHS = {5120: "a 14B model", 3072: "the 5B", 1536: "a 1.3B model"}
# Changes that are no product of two matrices, by a part of their names.
_OTHER_KINDS = {"lokr_": "LoKr", "hada_": "LoHa", "oft_": "OFT", "dora_scale": "DoRA"}
# What a file name or a note in its header may say, and what that means.
_SAYS = {
    "t2v": (r"t2v|text[ _-]?to[ _-]?video", "text-to-video"),
    "i2v": (r"(?<!t)i2v|image[ _-]?to[ _-]?video", "image-to-video"),
    "2.1": (r"wan[ _.-]?2[ _.]?1(?!\d)", "Wan 2.1"),
    "2.2": (r"wan[ _.-]?2[ _.]?2(?!\d)", "Wan 2.2"),
}
_NOTES = ("ss_base_model_version", "ss_output_name", "modelspec.title")
_TASK_NOTES = (*_NOTES, "modelspec.architecture")  # which names wan2.1 for both versions in files of musubi-tuner


def base_warnings(weights: Weights, sizes: Sizes, pair: bool) -> tuple[str, ...]:
    """Sentences about what the file says of its base, where the model is something else and sizes do not tell.

    Args:
        pair: the model is one of two experts, which only Wan 2.2 has.
    """
    task = {16: "t2v", 36: "i2v"}.get(sizes.get("patch_embedding.weight", (0, 0))[1])
    if "vace_patch_embedding.weight" in sizes:  # made from text-to-video, and given images
        task = None
    version = "2.1" if "img_emb.proj.0.weight" in sizes else "2.2" if pair else None
    name, sentences = Path(weights.source).name, []
    for words, notes, this in ((("t2v", "i2v"), _TASK_NOTES, task), (("2.1", "2.2"), _NOTES, version)):
        text = " ".join((name, *(weights.metadata.get(note, "") for note in notes))).lower()
        said = [word for word in words if re.search(_SAYS[word][0], text)]
        if this is not None and len(said) == 1 and said[0] != this:
            sentences.append(
                f"{name} says that it was made for {_SAYS[said[0]][1]}, and this is a model for {_SAYS[this][1]}: "
                "its effect may be weak, or wrong in the first frames"
            )
    return tuple(sentences)


def other_size(source: str, target: str, size: tuple[int, ...], needed: tuple[int, ...]) -> CheckpointError:
    """What to say of a change that does not have the size of its parameter."""
    made, this = (
        next((f" ({name})" for width, name in _WIDTHS.items() if width in dims), "") for dims in (size, needed)
    )
    return CheckpointError(
        f"{Path(source).name} changes {target} as one of size {size}{made}",
        f"size {needed}, as in this model{this}",
        "The LoRA was made for another base; use the one for this model",
    )


def nothing_applies(source: str, tensors: int, unknown: list[str]) -> CheckpointError:
    """What to say of a file that changes no parameter of the model."""
    name, first = Path(source).name, unknown[0] if unknown else ""
    kind = next((kind for part, kind in _OTHER_KINDS.items() if any(part in key for key in unknown)), None)
    if kind is not None:
        return CheckpointError(
            f"{name} is a {kind}, not a LoRA", "up and down matrices", "In ComfyUI its own LoRA loader reads it"
        )
    return CheckpointError(
        f"none of the {tensors} tensors of {name} applies{first and f', such as {first}'}",
        "a LoRA for Wan2.1 or Wan2.2",
        "Check that the file is a LoRA of this family",
    )
