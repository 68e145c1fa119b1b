"""`inspect`: what a file or folder is, from headers alone."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DiTConfig, Preset, TextConfig, VAEConfig, preset_for
from ..errors import CheckpointError, CheckpointNotFound
from .build import sibling_config
from .formats import Weights, open_weights
from .infer import describe_dtypes, infer_dit, infer_text, infer_vae, quantisation
from .key_maps import PARTS, find_part, no_part, to_official
from .model_files import checked_path, find_model
from .quant import mark_quantized


@dataclass(frozen=True)
class PartInfo:
    """One model part.

    Attributes:
        kind: dit | vae | text_encoder.
        layout: official | diffusers | huggingface | comfyui (official names under a prefix) | gguf.
        family: such as "i2v-a14b expert" or "Wan2.1 VAE".
        quantisation: dtypes, and the sign of a quantised layout where there is one.
        parameters, size: number of values; bytes on disk.
    """

    path: Path
    kind: str
    layout: str
    family: str
    quantisation: str
    parameters: int
    size: int
    config: DiTConfig | VAEConfig | TextConfig | None = None

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
        parts: one or two experts (high-noise first), VAE, text encoder.
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


def inspect(path: str | Path) -> PartInfo | FolderInfo:
    """What a weight file, a folder of shards, or a whole model folder is. Reads headers, never a tensor.

    Raises:
        CheckpointError: damaged, incomplete, or nothing of the Wan family.
    """
    path = checked_path(path)
    if not path.exists():
        raise CheckpointNotFound(f"{path} does not exist", "a weight file, a folder of shards, or a model folder")
    if path.is_file() or (path.is_dir() and _is_part(path)):
        return _inspect_part(path)
    return _inspect_folder(path)


def _inspect_folder(path: Path) -> FolderInfo:
    folder = find_model(path)
    paths = [folder.high, *([folder.low] if folder.low else []), folder.vae, folder.text_encoder]
    kinds = [*("dit" for _ in paths[:-2]), "vae", "text_encoder"]
    parts = tuple(_inspect_part(part, (kind,)) for part, kind in zip(paths, kinds))
    family = preset_for(parts[0].config, parts[-2].config, folder.low is not None).name
    return FolderInfo(path, folder.layout, family, parts, folder.boundary)


def resolve_preset(path: str | Path) -> Preset:
    """The preset of a model folder, with the sizes of its parts, from headers alone.

    Raises:
        CheckpointError: parts that do not belong together; both are named.
    """
    info = _inspect_folder(checked_path(path))
    *experts, vae, text = info.parts
    high, low = experts[0], experts[-1]
    if high.config != low.config:
        raise CheckpointError(
            f"{high.path.name} is {high.family} and {low.path.name} is {low.family}, with different sizes",
            "two experts of one model",
            "Use the high-noise and the low-noise file of the same release",
        )
    if high.config.out_channels != vae.config.z_channels:
        raise CheckpointError(
            f"the transformer makes {high.config.out_channels}-channel latents and {vae.path.name} is the "
            f"{vae.config.version} VAE, with {vae.config.z_channels} channels",
            "Wan2.1_VAE for the 14B and 1.3B models, Wan2.2_VAE for TI2V-5B",
            "Put the other VAE in its place",
        )
    if high.config.text_dim != text.config.dim:
        raise CheckpointError(
            f"the transformer takes text of width {high.config.text_dim} and {text.path.name} makes {text.config.dim}",
            "the umT5 encoder that the model was trained with",
        )
    preset = replace(preset_for(high.config, vae.config, len(experts) == 2), text=text.config)
    return preset if info.boundary is None else replace(preset, boundary=info.boundary)


def _is_part(folder: Path) -> bool:
    """Whether a folder holds one part (weights, and none of the files that make a whole model)."""
    whole = ("model_index.json", "high_noise_model", "low_noise_model", "google")
    weights = len(list(folder.glob("*.safetensors"))) == 1 or any(folder.glob("*.index.json"))
    return weights and not any((folder / name).exists() for name in whole)


def _inspect_part(path: Path, kinds: Iterable[str] = PARTS) -> PartInfo:
    """The first part of these kinds in a file; an all-in-one checkpoint has one of each."""
    weights = open_weights(path)
    for kind in kinds:
        found = find_part(kind, weights)
        if found:
            prefix, layout = found
            part = mark_quantized(weights.renamed(to_official(kind, weights, weights.source)))
            sign = quantisation(weights)
            config, family = _identify(kind, part, path)
            return PartInfo(
                path,
                kind,
                "gguf" if path.suffix.lower() == ".gguf" else "comfyui" if prefix else layout,
                family,
                describe_dtypes(part) + (f", quantised ({sign})" if sign else ""),
                sum(info.parameters for info in part.info.values()),
                weights.size,
                config,
            )
    raise no_part(str(path), weights, "a transformer, a VAE or a umT5 text encoder")


def _identify(kind: str, part: Weights, path: Path):
    """The part's config and its name in the family."""
    if kind == "vae":
        config = infer_vae(part)
        return config, f"Wan{config.version} VAE"
    if kind == "text_encoder":
        config = infer_text(part)
        return config, "umT5-xxl" if config == TextConfig() else f"umT5 of width {config.dim}"
    config = infer_dit(part, sibling_config(path))
    vae = VAEConfig.wan22() if config.out_channels == 48 else VAEConfig()
    if config.in_channels == 36:
        return config, "image-to-video (A14B expert, 36 input channels)"
    names = {preset_for(config, vae, two).name for two in ((False,) if config.out_channels == 48 else (True, False))}
    return config, " or ".join(sorted(names))
