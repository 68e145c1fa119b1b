"""Sizes of a model part from the shapes of its tensors, and the dtypes that they are stored in."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..config import DiTConfig, ImageEncoderConfig, TextConfig, VAEConfig
from ..errors import CheckpointError, quoted
from .formats import Weights

_QUANT_MARKERS = ("scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant")  # only quantized files have these
# Sizes of a transformer that stand in tensors of few families: the tensor, how many axes it has, and which one it is.
_BRANCHES = (
    ("image_dim", "img_emb.proj.1.weight", 2, 1),
    ("image_positions", "img_emb.emb_pos", 3, 1),
    ("reference_channels", "ref_conv.weight", 4, 1),
)
_SHORT_DTYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
    torch.float8_e4m3fn: "fp8_e4m3fn",
    torch.float8_e5m2: "fp8_e5m2",
}


def _layers(weights: Weights, prefix: str) -> int:
    """How many of prefix.0, prefix.1, … there are."""
    return len({name.split(".")[prefix.count(".") + 1] for name in weights if name.startswith(prefix + ".")})


def infer_dit(weights: Weights, config: DiTConfig | Mapping | None = None) -> DiTConfig:
    """Sizes of a transformer with official names; what `config` states comes first, the rest from the tensors.

    Args:
        config: DiTConfig, or a dict in the official or the diffusers form, complete or not. Without a number of heads
            they are taken to be 128 wide, as in every released model.
    Raises:
        CheckpointError: a width that 128 does not divide and no number of heads; numbers that contradict the tensors.
    """
    if isinstance(config, DiTConfig):
        return config
    stated = DiTConfig.values(config or {})
    dim = weights.shape("head.modulation", 3)[-1]
    if dim % 128 and "heads" not in stated:
        raise CheckpointError(
            f"{weights.source} has width {dim}",
            "a multiple of the head size, 128",
            "Pass config= with the model's num_heads, or put its config.json beside the weights",
        )
    layers, vace = _layers(weights, "blocks"), _layers(weights, "vace_blocks")
    inferred: dict[str, Any] = {
        "dim": dim,
        "ffn_dim": weights.shape("blocks.0.ffn.0.weight", 2)[0],
        "heads": dim // 128,
        "layers": layers,
        "in_channels": weights.shape("patch_embedding.weight", 5)[1],
        "out_channels": weights.shape("head.head.weight", 2)[0] // 4,  # patch (1, 2, 2)
        "text_dim": weights.shape("text_embedding.0.weight", 2)[1],
        "freq_dim": weights.shape("time_embedding.0.weight", 2)[1],
    }
    if vace:
        inferred["vace_layers"] = tuple(range(0, layers, max(1, layers // vace)))[:vace]
        inferred["vace_channels"] = weights.shape("vace_patch_embedding.weight", 5)[1]
    for name, tensor, rank, axis in _BRANCHES:
        if tensor in weights:
            inferred[name] = weights.shape(tensor, rank)[axis]
    for name in ("dim", "layers"):
        if stated.get(name, inferred[name]) != inferred[name]:
            raise CheckpointError(
                f"{weights.source} has {name} {inferred[name]} and its config says {quoted(stated[name])}",
                "the config of this model",
            )
    return DiTConfig(**inferred | stated)


def infer_vae(weights: Weights, config: VAEConfig | Mapping | None = None) -> VAEConfig:
    """Version and widths of a VAE with official names, from its tensors; `config` may not contradict them."""
    if isinstance(config, VAEConfig):
        return config
    if not isinstance(config, (Mapping, type(None))):
        raise CheckpointError(f"a VAE config that is a {type(config).__name__}", "a VAEConfig, or a dict")
    z = weights.shape("conv2.weight", 5)[0]
    dim = weights.shape("encoder.conv1.weight", 5)[0]
    decoder_dim = weights.shape("decoder.conv1.weight", 5)[0] // VAEConfig.multipliers[-1]
    folds = weights.shape("encoder.conv1.weight", 5)[1] == 12  # 2×2 pixels into channels, as the 2.2 VAE does
    inferred = VAEConfig.wan22(dim, decoder_dim) if folds else VAEConfig(dim=dim, decoder_dim=decoder_dim)
    if z != inferred.z_channels:
        raise CheckpointError(
            f"{weights.source} is a {inferred.version} VAE with {z} latent channels", f"{inferred.z_channels} channels"
        )
    sizes = {"kind": f"wan{inferred.version}", "dim": dim, "dec_dim": decoder_dim, "z_dim": z}
    for name, size in sizes.items():
        if config and config.get(name, size) != size:
            raise CheckpointError(
                f"{weights.source} has {name} {size} and its config says {quoted(config[name])}",
                "the config of this VAE",
            )
    return inferred


def infer_text(weights: Weights, config: TextConfig | Mapping | None = None) -> TextConfig:
    """Sizes of a umT5 encoder with official names; what `config` states comes first, the rest from the tensors."""
    if isinstance(config, TextConfig):
        return config
    vocab, dim = weights.shape("token_embedding.weight", 2)
    buckets, heads = weights.shape("blocks.0.pos_embedding.embedding.weight", 2)
    inferred = {
        "dim": dim,
        "dim_attn": weights.shape("blocks.0.attn.q.weight", 2)[0],
        "ffn_dim": weights.shape("blocks.0.ffn.fc1.weight", 2)[0],
        "heads": heads,
        "layers": _layers(weights, "blocks"),
        "vocab": vocab,
        "buckets": buckets,
    }
    return TextConfig(**inferred | TextConfig.values(config or {}))


def infer_image_encoder(weights: Weights, config: ImageEncoderConfig | None = None) -> ImageEncoderConfig:
    """Sizes of a CLIP vision tower from its tensors; heads are taken to be 80 wide, as in ViT-H.

    Raises:
        CheckpointError: another width, or positions that are no square of patches and a class.
    """
    if config is not None:
        return config
    dim, patch = weights.shape("embeddings.patch_embedding.weight", 4)[::3]
    positions = weights.shape("embeddings.position_embedding.weight", 2)[0]
    layers, side = _layers(weights, "encoder.layers"), math.isqrt(max(positions - 1, 0))
    if dim % 80 or side**2 + 1 != positions or layers > 64:
        raise CheckpointError(
            f"{weights.source} is a vision encoder of width {dim} with {positions} positions and {layers + 1} layers",
            "CLIP ViT-H/14, 1280 wide with 257 positions and 32 layers",
            "Use clip_vision_h, or models_clip_open-clip-xlm-roberta-large-vit-huge-14 of the release",
        )
    ffn_dim = weights.shape("encoder.layers.0.mlp.fc1.weight", 2)[0]
    return ImageEncoderConfig(dim, ffn_dim, dim // 80, layers, patch, patch * side)


def quant_marker(names: Iterable[str]) -> str | None:
    """What among the tensor names marks a quantized file, or None."""
    names = list(names)
    return next((marker for marker in _QUANT_MARKERS if any(name.endswith(marker) for name in names)), None)


def main_dtype(weights: Weights) -> torch.dtype:
    """The dtype that most parameters are stored in."""
    count: Counter = Counter()
    for info in weights.info.values():
        if info.dtype.is_floating_point:
            count[info.dtype] += info.parameters
    return count.most_common(1)[0][0] if count else torch.float32


def describe_dtypes(weights: Weights) -> str:
    """Such as "bf16", or "fp8_e4m3fn 92%, fp32 8%"."""
    count: Counter = Counter()
    for info in weights.info.values():
        count[_SHORT_DTYPES.get(info.dtype, info.qtype or str(info.dtype).removeprefix("torch."))] += info.parameters
    total = sum(count.values())
    shares = [(name, n / total) for name, n in count.most_common() if n / total >= 0.005]
    return shares[0][0] if len(shares) == 1 else ", ".join(f"{name} {share:.0%}" for name, share in shares)
