"""From weights to modules: constructed on the meta device, then given the tensors of the file."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..cpu import make_dit, make_vae
from ..devices import usable_device, usable_dtype
from ..dit import WanDiT
from ..errors import CheckpointError
from ..text import UMT5
from ..vae import WanVAE
from .families import check_family
from .formats import Weights, from_state_dict, open_weights, read_config
from .infer import infer_dit, infer_text, infer_vae, main_dtype
from .key_maps import PARTS, to_official
from .quant import check_quantization, mark_quantized, quantized_weight

Source = str | Path | Mapping[str, Tensor] | Weights
Module = TypeVar("Module", bound=nn.Module)


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
    weights = open_part(source, "dit")
    config = infer_dit(weights, config or sibling_config(source))
    return _build(lambda: make_dit(config), weights, dtype, device, keep=is_float32_layer)


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
    weights = open_part(source, "vae")
    config = infer_vae(weights, config)
    return _build(lambda: make_vae(config), weights, dtype or torch.float32, device)


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
    weights = open_part(source, "text_encoder")
    config = infer_text(weights, config)
    if dtype is None and main_dtype(weights) == torch.float16:
        dtype = torch.bfloat16
    return _build(lambda: UMT5(config), weights, dtype, device)


def is_float32_layer(name: str) -> bool:
    """Transformer parameters that take part in float32 arithmetic whatever the branches compute in."""
    image_branch = ("img_emb.proj.0.", "img_emb.proj.4.", "img_emb.emb_pos")  # its norms, and what goes into the first
    return name.startswith(("time_", "head.", *image_branch)) or name.endswith("modulation") or ".norm3." in name


def open_part(source: Source, kind: str) -> Weights:
    """The part's parameters under their official names.

    Raises:
        CheckpointError: another kind of file, a family that is not built here, or a quantization that only ComfyUI
            knows.
    """
    if isinstance(source, Mapping):
        source = from_state_dict(source)
    elif isinstance(source, (str, Path)):
        source = open_weights(source)
    elif not isinstance(source, Weights):
        raise CheckpointError(f"{PARTS[kind]} from a {type(source).__name__}", "a path or a state dict")
    check_quantization(source)
    return identify_part(source, kind)


def identify_part(weights: Weights, kind: str) -> Weights:
    """The same of opened weights, quantized in whatever way: for a host that has layers for it.

    Raises:
        CheckpointError: another kind of file, or a family that is not built here.
    """
    part = weights.renamed(to_official(kind, weights, weights.source))
    if kind == "dit":
        check_family(part, part.metadata, weights.source)
    return mark_quantized(part)


def sibling_config(source: Source) -> dict | None:
    """config.json in a folder, or beside a file, where it describes a transformer."""
    if not isinstance(source, (str, Path)):
        return None
    path = Path(source)
    config = read_config(path if path.is_dir() else path.parent) or {}
    return config if "num_heads" in config or "attention_head_dim" in config else None


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
    with torch.device("meta"), _NoRandomNumbers():
        module = construct()
    device, dtype, expected = usable_device(device), usable_dtype(dtype), module.state_dict()
    _check_names(weights, expected)
    dtype = _compute_dtype(weights, dtype)
    state: dict[str, Tensor] = {}
    for name in expected:
        info = weights.info[name]
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


class _NoRandomNumbers(TorchFunctionMode):
    """Skips initial values, which are replaced; on the meta device they would import 60 MB of symbolic algebra."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **kwargs)


def _check_names(weights: Weights, expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    wrong = [name for name in expected if name in weights and weights.shape(name) != tuple(expected[name].shape)]
    if not (missing or unknown or wrong):
        return
    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} of {len(expected)} tensors ({_some(missing)})")
    if unknown:
        problems.append(f"has {len(unknown)} tensors this model does not know ({_some(unknown)})")
    if wrong:
        name = wrong[0]
        shapes = f"{name} is {weights.shape(name)} instead of {tuple(expected[name].shape)}"
        problems.append(f"has {len(wrong)} tensors of another shape ({shapes})")
    raise CheckpointError(
        f"{weights.source} {' and '.join(problems)}",
        "a complete checkpoint of this model",
        "Download it again, or pass the config= that it was made with",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
