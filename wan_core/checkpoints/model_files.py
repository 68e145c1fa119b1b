"""From a path to a model: every part is paths, opened once, identified, and checked against the others."""

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DiTConfig, ImageEncoderConfig, Preset, VAEConfig, preset_for
from ..errors import CheckpointError, CheckpointNotFound
from ..memory import typed_oom
from .build import Part, check_part
from .families import describe_dit
from .folders import ModelFolder, find_parts
from .formats import Weights, load_json, open_weights
from .identify import COMPARED, same_weights, warn_of_title
from .tokenizer import check_tokenizer


@dataclass(frozen=True)
class ModelFiles:
    """The opened parts of a model that belong together; what `WanPipeline.from_files` takes.

    Attributes:
        layout: official | diffusers | comfyui.
        preset: the family's official defaults, with this model's own sizes and boundary.
        high, low: the experts under their stored names, for `load_dit`; low is None for a single model.
        tokenizer: its folder, or the text encoder that embeds it; for `open_tokenizer`.
        boundary: as the folder states it, or None.
        named: whether names or metadata say which expert is which; else `identify_experts` has to.
        image_encoder: of models with a CLIP branch, for `load_image_encoder`.
    """

    path: Path
    layout: str
    preset: Preset
    high: Weights
    low: Weights | None
    vae: Weights
    text_encoder: Weights
    tokenizer: Path | Weights
    boundary: float | None
    named: bool
    image_encoder: Weights | None = None


@typed_oom()
def open_model(path: str | Path) -> ModelFiles:
    """Find, open, identify and check every part of a model.

    Reads headers, and of two experts the first bytes of tensors until one differs.

    Args:
        path: official folder, diffusers folder, or a folder of ComfyUI single files.
    Raises:
        CheckpointNotFound: no folder, an empty one, or one that lacks a part.
        CheckpointError: several candidates for one part, a damaged file, a model that is not loaded here, or parts that
            do not belong together; both are named.
    """
    open_once = functools.cache(open_weights)
    paths = find_parts(path, open_once)
    vae, text_encoder = open_once(paths.vae), open_once(paths.text_encoder)
    high, low = open_once(paths.high), open_once(paths.low) if paths.low else None
    tokenizer = text_encoder if paths.tokenizer == paths.text_encoder else paths.tokenizer
    dit = check_part(high, "dit")
    if low is not None:
        check_pair(dit, check_part(low, "dit"))
    vae_config, text_config = check_part(vae, "vae").config, check_part(text_encoder, "text_encoder").config
    _check_vae(dit.config, vae, vae_config)
    if dit.config.text_dim != text_config.dim:
        raise CheckpointError(
            f"the transformer takes text of width {dit.config.text_dim} and {_name(text_encoder)} makes "
            f"{text_config.dim}",
            "the umT5 encoder that the model was trained with",
        )
    check_tokenizer(tokenizer)
    image_encoder = open_once(paths.image_encoder) if dit.config.image_dim and paths.image_encoder else None
    preset = replace(
        preset_for(dit.config, vae_config, low is not None, names_of(Path(path), high)),
        text=text_config,
        image_encoder=_image_encoder_config(dit.config, image_encoder, Path(path)),
    )
    return ModelFiles(
        path=Path(path),
        layout=paths.layout,
        preset=preset if paths.boundary is None else replace(preset, boundary=paths.boundary),
        high=high,
        low=low,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        boundary=paths.boundary,
        named=paths.named,
        image_encoder=image_encoder,
    )


def find_model(path: str | Path) -> ModelFolder:
    """Where the parts of a model lie; the search of `open_model` without its checks. Raises as it does."""
    return find_parts(path, functools.cache(open_weights))


def check_pair(high: Part, low: Part) -> None:
    """Whether two transformers are the experts of one model. A warning says where a title contradicts its place.

    Raises:
        CheckpointError: experts of different sizes, or the same weights twice.
    """
    if high.config != low.config:
        kinds = describe_dit(high.config), describe_dit(low.config)
        raise CheckpointError(
            f"{_name(high.weights)} is {kinds[0]} and {_name(low.weights)} is {kinds[1]}, with different sizes",
            "two experts of one model",
            "Use the high-noise and the low-noise file of the same release",
        )
    for part, place in ((high, "high"), (low, "low")):
        warn_of_title(part.weights, place)
    if same_weights(high.weights, low.weights):
        raise CheckpointError(
            f"{_name(high.weights)} and {_name(low.weights)} hold the same weights (names, shapes and the first "
            f"{COMPARED:,} bytes of every tensor are equal)",
            "the high-noise and the low-noise expert of one release",
            "Download the other expert again, or use the file alone where it is a single model",
        )


def _check_vae(dit: DiTConfig, vae: Weights, config: VAEConfig) -> None:
    if dit.out_channels != config.z_channels:
        raise CheckpointError(
            f"the transformer makes {dit.out_channels}-channel latents and {_name(vae)} is the {config.version} VAE, "
            f"with {config.z_channels} channels",
            "Wan2.1_VAE for the 14B and 1.3B models, Wan2.2_VAE for TI2V-5B",
            "Put the other VAE in its place",
        )


def _name(weights: Weights) -> str:
    return Path(weights.source).name


def names_of(folder: Path, dit: Weights) -> str:
    """What the folder, the transformer's file, the folder's index and the header call the model."""
    folder = folder.absolute()
    release = folder.parent.parent.name if folder.parent.name == "snapshots" else ""  # of the hub's cache
    index = folder / "model_index.json"
    inside = Path(dit.source).absolute()
    return "\n".join(
        [
            release,
            folder.name,
            folder.resolve().name,  # of what a link leads to
            str(inside.relative_to(folder) if inside.is_relative_to(folder) else inside.name),
            json.dumps(load_json(index)) if index.is_file() else "",
            *dit.metadata.values(),
        ]
    )


def _image_encoder_config(dit: DiTConfig, weights: Weights | None, folder: Path) -> ImageEncoderConfig | None:
    """Sizes of the vision encoder of a model with a CLIP branch.

    Raises:
        CheckpointNotFound: the folder has none. CheckpointError: it does not fit.
    """
    if not dit.image_dim:
        return None
    if weights is None:
        raise CheckpointNotFound(
            f"{folder} has no CLIP vision encoder, and its transformer takes image tokens",
            "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth (official), image_encoder/ (diffusers), or "
            "clip_vision_h.safetensors (ComfyUI)",
            "Download the file as well",
        )
    config = check_part(weights, "image_encoder").config
    tokens = 2 * config.tokens
    if config.dim != dit.image_dim or dit.image_positions not in (0, tokens):
        raise CheckpointError(
            f"the transformer takes image tokens of width {dit.image_dim}"
            + (f", {dit.image_positions} of them" if dit.image_positions else "")
            + f", and {_name(weights)} makes {config.tokens} of width {config.dim} for each image",
            "CLIP ViT-H/14, which the model was trained with",
            "Put clip_vision_h.safetensors in its place",
        )
    return config
