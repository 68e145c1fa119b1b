"""From weights to modules: identified and checked by their headers, constructed, then given the tensors of the file."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..config import USE_COMFYUI, ImageEncoderConfig
from ..cpu import make_dit, make_vae
from ..devices import usable_device, usable_dtype
from ..dit import WanDiT
from ..errors import LONGEST_EXCERPT, CheckpointError, some
from ..memory import typed_oom
from ..text import UMT5
from ..vae import WanVAE
from ..vision import ImageEncoder
from .expected import EXPECTED, NoRandomNumbers
from .families import check_family
from .formats import Weights, from_state_dict, open_weights, read_config
from .infer import infer_dit, infer_image_encoder, infer_text, infer_vae, main_dtype
from .key_maps import PARTS, find_part, to_official
from .quant import check_quantization, check_scales, foreign_layers, mark_quantized, quantized_weight
from .vision import vision_tower

Source = str | Path | Mapping[str, Tensor] | Weights
Module = TypeVar("Module", bound=nn.Module)
_INFER: dict[str, Callable[[Weights, Any], Any]] = {
    "dit": infer_dit,
    "vae": infer_vae,
    "text_encoder": infer_text,
    "image_encoder": infer_image_encoder,
}


@dataclass(frozen=True)
class Part:
    """A part of a model that loads: its file has every tensor of its module, and no other.

    Attributes:
        kind: a key of `key_maps.PARTS`.
        weights: under official names.
        config: DiTConfig, VAEConfig, TextConfig or ImageEncoderConfig.
    """

    kind: str
    weights: Weights
    config: Any


@typed_oom()
def load_dit(
    source: Source, config=None, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> WanDiT:
    """A diffusion transformer in evaluation mode.

    Args:
        source: a file, a folder of shards, a state dict, or opened Weights; official, diffusers or ComfyUI names.
            Matrices in fp8 (plain or scaled), int8 or GGUF formats stay quantized; each is dequantized when it is used.
        config: DiTConfig, or a dict with keys of the official config.json; None: the config.json beside the weights.
            What it does not state is inferred from the tensors (heads = dim / 128).
        dtype: what to compute in; None: as stored, and bfloat16 for quantized files. Time embedding, modulation,
            norms with bias, and head are computed in float32 and keep the precision they are stored in.
        device: where the weights go. On the CPU, tensors that need no cast stay memory-mapped.
    Raises:
        CheckpointError: damaged, incomplete, quantized in a way that only ComfyUI knows, not a transformer, or one of
            a family that is not built here.
    """
    part = check_part(source, "dit", config)
    return _build(lambda: make_dit(part.config), part.weights, dtype, device, keep=is_float32_layer)


@typed_oom()
def load_vae(
    source: Source, config=None, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> WanVAE:
    """A VAE in evaluation mode; version and widths are recognised from the tensors.

    Args:
        source: a file, a folder, a state dict, or opened Weights; official or diffusers names.
        config: VAEConfig; None or a dict: inferred from the tensors.
        dtype: None: float32, as the official code runs it.
    Raises:
        CheckpointError: damaged, incomplete, or not a Wan VAE.
    """
    part = check_part(source, "vae", config)
    return _build(lambda: make_vae(part.config), part.weights, dtype or torch.float32, device)


@typed_oom()
def load_text_encoder(
    source: Source, config=None, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> UMT5:
    """A umT5 encoder in evaluation mode.

    Args:
        source: a file, a folder of shards, a state dict, or opened Weights; official, Hugging Face, ComfyUI or GGUF
            names. Quantized matrices stay quantized, as in `load_dit`.
        config: TextConfig, or a dict with the official constructor's names; the rest is inferred.
        dtype: None: as stored; weights stored in float16 compute in bfloat16, whose range umT5 needs.
    Raises:
        CheckpointError: damaged, incomplete, quantized in a way that only ComfyUI knows, or not a umT5 encoder.
    """
    part = check_part(source, "text_encoder", config)
    if dtype is None and main_dtype(part.weights) == torch.float16:
        dtype = torch.bfloat16
    return _build(lambda: UMT5(part.config), part.weights, dtype, device)


@typed_oom()
def load_image_encoder(
    source: Source, config: ImageEncoderConfig | None = None, device: torch.device | str = "cpu"
) -> ImageEncoder:
    """A CLIP vision encoder in evaluation mode, in float32 as the VAE; its last layer is not loaded.

    Args:
        source: a file, a folder, a state dict, or opened Weights; official, transformers or ComfyUI names.
        config: None: inferred from the tensors (heads = dim / 80, as in ViT-H).
    Raises:
        CheckpointError: damaged, incomplete, or not a CLIP vision encoder.
    """
    part = check_part(source, "image_encoder", config)
    return _build(lambda: ImageEncoder(part.config), part.weights, torch.float32, device)


def is_float32_layer(name: str) -> bool:
    """Transformer parameters that take part in float32 arithmetic whatever the branches compute in."""
    image_branch = ("img_emb.proj.0.", "img_emb.proj.4.", "img_emb.emb_pos")  # its norms, and what goes into the first
    return name.startswith(("time_", "head.", *image_branch)) or name.endswith("modulation") or ".norm3." in name


def check_part(source: Source, kind: str, config=None, in_comfyui: bool = False) -> Part:
    """Open, identify and check a part: the one verdict of `inspect`, `plan`, every loader and the nodes.

    Names and shapes are compared with those of the part's module, from headers alone.

    Args:
        kind: a key of `key_maps.PARTS`.
        config: what is known of the sizes, as for `load_dit`.
        in_comfyui: layers may be stored in formats that ComfyUI alone dequantizes.
    Raises:
        CheckpointError: another kind of file, a family that is not built here, a quantization that only ComfyUI knows,
            or tensors that are missing, unknown, or of another shape.
    """
    stored = _open(source, kind)
    weights = identify_part(stored, kind)
    if not in_comfyui:
        check_quantization(stored)
    if kind == "dit":
        config = config or sibling_config(stored)
    config = _sizes(kind, weights, config)
    expected = EXPECTED[kind](config)
    if in_comfyui:
        packed = _packed_layers(stored, kind)
        expected |= {name: weights.shape(name) for name in weights if name.rpartition(".")[0] in packed}
    _check_names(weights, expected)
    if not in_comfyui:
        check_scales(weights)
    return Part(kind, weights, config)


def _sizes(kind: str, weights: Weights, config: Any) -> Any:
    """
    Raises:
        CheckpointError: sizes that no model has, with the file that they are of.
    """
    try:
        return _INFER[kind](weights, config)
    except CheckpointError as error:
        if weights.source in error.found:
            raise
        fix = error.fix or "Check its config.json, or download it again"
        raise CheckpointError(f"{weights.source}: {error.found}", error.needed, fix) from error


def _packed_layers(stored: Weights, kind: str) -> set[str]:
    """Official names of the layers that ComfyUI alone dequantizes; their tensors have whatever shape it packs them to.

    A header names layers as the file does, or without the file's prefix.
    """
    foreign, (prefix, _) = foreign_layers(stored), find_part(kind, stored) or ("", "")
    return {
        ours.rpartition(".")[0]
        for ours, theirs in to_official(kind, stored, stored.source).items()
        if {theirs.rpartition(".")[0], theirs.rpartition(".")[0].removeprefix(prefix)} & foreign.keys()
    }


def _open(source: Source, kind: str) -> Weights:
    if isinstance(source, Mapping):
        return from_state_dict(source)
    if isinstance(source, (str, Path)):
        return open_weights(source)
    if not isinstance(source, Weights):
        raise CheckpointError(f"{PARTS[kind]} from a {type(source).__name__}", "a path or a state dict")
    return source


def identify_part(weights: Weights, kind: str) -> Weights:
    """The same of opened weights, quantized in whatever way: for a host that has layers for it.

    Raises:
        CheckpointError: another kind of file, or a family that is not built here.
    """
    part = weights.renamed(to_official(kind, weights, weights.source))
    check_family(kind, part, part.metadata, weights.source)
    if kind == "image_encoder":
        part = vision_tower(part)
    return mark_quantized(part)


def sibling_config(source: str | Path | Weights) -> dict | None:
    """config.json in a folder, or beside a file, where it describes a transformer."""
    if isinstance(source, Weights):
        return None if source.format == "memory" else sibling_config(source.source)
    path = Path(source)
    config = read_config(path if path.is_dir() else path.parent) or {}
    is_dit = "attention_head_dim" in config or ("num_heads" in config and "d_model" not in config)  # umT5 has heads too
    return config if is_dit else None


def _build(
    construct: Callable[[], Module],
    weights: Weights,
    dtype: torch.dtype | None,
    device: torch.device | str,
    keep: Callable[[str], bool] = lambda name: False,
) -> Module:
    """Construct without memory and assign the tensors, one at a time where they have to be cast or moved.

    Args:
        keep: names of parameters that are not cast to a narrower dtype.
    """
    with torch.device("meta"), NoRandomNumbers():
        module = construct()
    device, dtype = usable_device(device), _compute_dtype(weights, usable_dtype(dtype))
    state: dict[str, Tensor] = {}
    for name, info in weights.info.items():
        target = info.dtype if keep(name) and info.dtype.itemsize >= dtype.itemsize else dtype
        if info.qtype:
            state[name] = quantized_weight(weights, name, dtype, device)
        elif info.dtype == target and device.type == "cpu":
            state[name] = weights.tensor(name)
        else:
            state[name] = weights.tensor(name, transient=True).to(device, target)
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def _compute_dtype(weights: Weights, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype that was asked for; else bfloat16 for quantized weights, and what the others are stored in."""
    qtypes = {info.qtype for info in weights.info.values() if info.qtype}
    dtype = dtype or (torch.bfloat16 if qtypes else main_dtype(weights))
    if any(qtype.startswith("float8") for qtype in qtypes):
        logging.getLogger(__name__).warning(
            "%s: fp8 weights are computed in %s, a layer at a time", weights.source, str(dtype).removeprefix("torch.")
        )
    return dtype


def _check_names(weights: Weights, expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    wrong = [name for name in expected if name in weights and weights.shape(name) != expected[name]]
    if not (missing or unknown or wrong):
        return
    room = LONGEST_EXCERPT if not (missing and unknown) else LONGEST_EXCERPT // 2
    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} of {len(expected)} tensors ({some(missing, room)})")
    if unknown:
        problems.append(f"has {len(unknown)} tensors this model does not know ({some(unknown, room)})")
    if wrong:
        name = wrong[0]
        shapes = f"{name} is {weights.shape(name)} instead of {expected[name]}"
        problems.append(f"has {len(wrong)} tensors of another shape ({shapes})")
    fix = "Download it again"
    if wrong:
        fix += ", or pass the config= that it was made with"
    elif not missing:
        fix = USE_COMFYUI
    raise CheckpointError(f"{weights.source} {' and '.join(problems)}", "a complete checkpoint of this model", fix)
