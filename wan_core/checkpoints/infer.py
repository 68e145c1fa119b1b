"""What a set of tensors is: sizes from shapes, and how the numbers are stored."""

from collections import Counter
from collections.abc import Mapping

import torch

from ..config import DiTConfig, TextConfig, VAEConfig
from ..errors import CheckpointError
from .formats import Weights

# Names that only quantised files have.
_QUANTISED = ("scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant")
_SHORT = {
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
    given = DiTConfig.values(config or {})
    dim = weights.shape("head.modulation", 3)[-1]
    if dim % 128 and "heads" not in given:
        raise CheckpointError(
            f"{weights.source} has width {dim}",
            "a multiple of the head size, 128",
            "Pass config= with the model's num_heads, or put its config.json beside the weights",
        )
    layers, vace = _layers(weights, "blocks"), _layers(weights, "vace_blocks")
    found = {
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
        found["vace_layers"] = tuple(range(0, layers, max(1, layers // vace)))[:vace]
        found["vace_channels"] = weights.shape("vace_patch_embedding.weight", 5)[1]
    for name in ("dim", "layers"):
        if given.get(name, found[name]) != found[name]:
            raise CheckpointError(
                f"{weights.source} has {name} {found[name]} and its config says {given[name]!r}",
                "the config of this model",
            )
    return DiTConfig(**found | given)


def infer_vae(weights: Weights, config: VAEConfig | Mapping | None = None) -> VAEConfig:
    """Version and widths of a VAE with official names, from its tensors; `config` may not contradict them."""
    if isinstance(config, VAEConfig):
        return config
    if not isinstance(config, (Mapping, type(None))):
        raise CheckpointError(f"a VAE config that is a {type(config).__name__}", "a VAEConfig, or a dict")
    z = weights.shape("conv2.weight", 5)[0]
    dim = weights.shape("encoder.conv1.weight", 5)[0]
    decoder_dim = weights.shape("decoder.conv1.weight", 5)[0] // VAEConfig.multipliers[-1]
    newer = weights.shape("encoder.conv1.weight", 5)[1] == 12  # pixels folded 2×2
    found = VAEConfig.wan22(dim, decoder_dim) if newer else VAEConfig(dim=dim, decoder_dim=decoder_dim)
    if z != found.z_channels:
        raise CheckpointError(
            f"{weights.source} is a {found.version} VAE with {z} latent channels", f"{found.z_channels} channels"
        )
    facts = {"kind": f"wan{found.version}", "dim": dim, "dec_dim": decoder_dim, "z_dim": z}
    for name, fact in facts.items():
        if config and config.get(name, fact) != fact:
            raise CheckpointError(
                f"{weights.source} has {name} {fact} and its config says {config[name]!r}", "the config of this VAE"
            )
    return found


def infer_text(weights: Weights, config: TextConfig | Mapping | None = None) -> TextConfig:
    """Sizes of a umT5 encoder with official names; what `config` states comes first, the rest from the tensors."""
    if isinstance(config, TextConfig):
        return config
    vocab, dim = weights.shape("token_embedding.weight", 2)
    buckets, heads = weights.shape("blocks.0.pos_embedding.embedding.weight", 2)
    found = {
        "dim": dim,
        "dim_attn": weights.shape("blocks.0.attn.q.weight", 2)[0],
        "ffn_dim": weights.shape("blocks.0.ffn.fc1.weight", 2)[0],
        "heads": heads,
        "layers": _layers(weights, "blocks"),
        "vocab": vocab,
        "buckets": buckets,
    }
    return TextConfig(**found | TextConfig.values(config or {}))


def quantisation(names) -> str | None:
    """The sign of a quantised file among the tensor names, or None."""
    return next((sign for sign in _QUANTISED if any(name.endswith(sign) for name in names)), None)


def main_dtype(weights: Weights) -> torch.dtype:
    """The dtype that most parameters are stored in."""
    count = Counter()
    for info in weights.info.values():
        if info.dtype.is_floating_point:
            count[info.dtype] += info.parameters
    return count.most_common(1)[0][0] if count else torch.float32


def describe_dtypes(weights: Weights) -> str:
    """Such as "bf16", or "fp8_e4m3fn 92%, fp32 8%"."""
    count = Counter()
    for info in weights.info.values():
        count[_SHORT.get(info.dtype, info.qtype or str(info.dtype).removeprefix("torch."))] += info.parameters
    total = sum(count.values())
    shares = [(name, n / total) for name, n in count.most_common() if n / total >= 0.005]
    return shares[0][0] if len(shares) == 1 else ", ".join(f"{name} {share:.0%}" for name, share in shares)
