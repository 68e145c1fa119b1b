"""From a path to a model: every part is paths, opened once, identified, and checked against the others."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DiTConfig, Preset, VAEConfig, preset_for
from ..errors import CheckpointError
from ..memory import typed_oom
from .build import open_part, sibling_config
from .families import describe_dit
from .folders import ModelFolder, find_parts
from .formats import Weights, open_weights
from .infer import infer_dit, infer_text, infer_vae


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


@typed_oom()
def open_model(path: str | Path) -> ModelFiles:
    """Find, open, identify and check every part of a model. Reads headers, never a weight.

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
    dit, vae_config = _dit_config(high), infer_vae(open_part(vae, "vae"))
    text_config = infer_text(open_part(text_encoder, "text_encoder"))
    if low is not None:
        check_pair(high, dit, low, _dit_config(low))
    _check_vae(dit, vae, vae_config)
    if dit.text_dim != text_config.dim:
        raise CheckpointError(
            f"the transformer takes text of width {dit.text_dim} and {_name(text_encoder)} makes {text_config.dim}",
            "the umT5 encoder that the model was trained with",
        )
    preset = replace(preset_for(dit, vae_config, low is not None), text=text_config)
    return ModelFiles(
        path=Path(path),
        layout=paths.layout,
        preset=preset if paths.boundary is None else replace(preset, boundary=paths.boundary),
        high=high,
        low=low,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=text_encoder if paths.tokenizer == paths.text_encoder else paths.tokenizer,
        boundary=paths.boundary,
        named=paths.named,
    )


def find_model(path: str | Path) -> ModelFolder:
    """Where the parts of a model lie; the search of `open_model` without its checks. Raises as it does."""
    return find_parts(path, functools.cache(open_weights))


def _dit_config(weights: Weights) -> DiTConfig:
    return infer_dit(open_part(weights, "dit"), sibling_config(weights.source))


def check_pair(high: Weights, high_config: DiTConfig, low: Weights, low_config: DiTConfig) -> None:
    """
    Raises:
        CheckpointError: experts of different sizes.
    """
    if high_config != low_config:
        kinds = describe_dit(high_config), describe_dit(low_config)
        raise CheckpointError(
            f"{_name(high)} is {kinds[0]} and {_name(low)} is {kinds[1]}, with different sizes",
            "two experts of one model",
            "Use the high-noise and the low-noise file of the same release",
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
