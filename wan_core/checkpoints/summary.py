"""`inspect`: what a file or folder is, from headers alone."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import DiTConfig, ImageEncoderConfig, TextConfig, VAEConfig
from ..errors import CheckpointNotFound
from ..memory import typed_oom
from .build import check_part
from .families import describe_dit
from .folders import holds_part
from .formats import Weights, checked_path, open_weights
from .infer import describe_dtypes, quant_marker
from .key_maps import PARTS, find_part, no_part
from .model_files import names_of, open_model


@dataclass(frozen=True)
class PartInfo:
    """One model part.

    Attributes:
        kind: dit | vae | text_encoder | image_encoder.
        layout: official | diffusers | huggingface | comfyui (official names under a prefix) | gguf.
        family: such as "i2v-a14b expert" or "Wan2.1 VAE".
        quantisation: dtypes, and the tensor name that marks a quantised file.
        parameters, size: number of values; bytes on disk.
    """

    path: Path
    kind: str
    layout: str
    family: str
    quantisation: str
    parameters: int
    size: int
    config: DiTConfig | VAEConfig | TextConfig | ImageEncoderConfig | None = None

    def __str__(self) -> str:
        return (
            f"{self.path}\n  {PARTS[self.kind]}: {self.family}, {self.layout} layout, {self.quantisation}, "
            f"{self.parameters / 1e9:.3f} billion parameters, {self.size / 2**30:.2f} GiB"
        )


@dataclass(frozen=True)
class FolderInfo:
    """A whole model.

    Attributes:
        layout: official | diffusers | comfyui.
        family: name of the preset that its defaults come from.
        parts: one or two experts (high-noise first), VAE, text encoder, and the vision encoder of models with CLIP.
        boundary: as the folder states it, or None.
    """

    path: Path
    layout: str
    family: str
    parts: tuple[PartInfo, ...]
    boundary: float | None = None

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def __str__(self) -> str:
        head = f"{self.path}: {self.family}, {self.layout} layout, {self.size / 2**30:.2f} GiB"
        return "\n".join([head, *(str(part) for part in self.parts)])


@typed_oom()
def inspect(path: str | Path) -> PartInfo | FolderInfo:
    """What a weight file, a folder of shards, or a whole model folder is. Reads headers, never a weight.

    Raises:
        CheckpointError: what loading it would refuse: damaged, incomplete, of a family or a quantization that is not
            loaded here, nothing of the Wan family, or parts that do not belong together.
    """
    path = checked_path(path)
    if not path.exists():
        raise CheckpointNotFound(f"{path} does not exist", "a weight file, a folder of shards, or a model folder")
    open_once = functools.cache(open_weights)
    if path.is_file() or holds_part(path, open_once):
        return _part_of(path, open_once(path))
    model = open_model(path)
    experts = [model.high] if model.low is None else [model.high, model.low]
    kinds = {"dit": experts, "vae": [model.vae], "text_encoder": [model.text_encoder]}
    kinds["image_encoder"] = [] if model.image_encoder is None else [model.image_encoder]
    names = names_of(path, model.high)
    parts = [_part(Path(weights.source), weights, kind, names) for kind, files in kinds.items() for weights in files]
    return FolderInfo(path, model.layout, model.preset.name, tuple(parts), model.boundary)


def _part_of(path: Path, weights: Weights) -> PartInfo:
    """The first part in a file; an all-in-one checkpoint has one of each kind."""
    kind = next((kind for kind in PARTS if find_part(kind, weights)), None)
    if kind is None:
        raise no_part(weights.source, weights, "a transformer, a VAE or a umT5 text encoder")
    return _part(path, weights, kind, "\n".join((path.absolute().parent.name, path.name, *weights.metadata.values())))


def _part(path: Path, weights: Weights, kind: str, names: str) -> PartInfo:
    marker = quant_marker(weights)
    prefix, layout = find_part(kind, weights) or ("", "")
    part = check_part(weights, kind)
    return PartInfo(
        path,
        kind,
        weights.format if weights.is_ggml else "comfyui" if prefix else layout,
        describe_dit(part.config, names) if kind == "dit" else _DESCRIBE[kind](part.config),
        describe_dtypes(part.weights) + (f", quantised ({marker})" if marker else ""),
        sum(info.parameters for info in part.weights.info.values()),
        weights.size,
        part.config,
    )


def _describe_text(config: TextConfig) -> str:
    return "umT5-xxl" if config == TextConfig() else f"umT5 of width {config.dim}"


def _describe_image_encoder(config: ImageEncoderConfig) -> str:
    return "CLIP ViT-H/14" if config == ImageEncoderConfig() else f"CLIP ViT of width {config.dim}"


# kind → what to call a part of these sizes
_DESCRIBE: dict[str, Callable[[Any], str]] = {
    "vae": lambda config: f"Wan{config.version} VAE",
    "text_encoder": _describe_text,
    "image_encoder": _describe_image_encoder,
}
