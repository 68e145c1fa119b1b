"""Attention backends besides sdpa, chosen by name; they are used where they are installed."""

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from .errors import InputError, quoted
from .ops import Attention, sdpa


def _suits(q: Tensor, bias: Tensor | None) -> bool:
    """What the packages take; the rest is sdpa's: float32, other devices, and the bias of folded padding."""
    return bias is None and q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)


def _flash() -> Attention:
    """FlashAttention 3 or 2: exact."""
    try:
        from flash_attn_interface import flash_attn_func
    except (ImportError, OSError):
        from flash_attn import flash_attn_func

    def flash(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _suits(q, bias):
            return sdpa(q, k, v, bias)
        out = flash_attn_func(q, k, v)
        return out[0] if isinstance(out, tuple) else out  # version 3 may add the log-sum-exp

    return flash


def _sage() -> Attention:
    """SageAttention: 8-bit scores, so not exact."""
    from sageattention import sageattn

    def sage(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _suits(q, bias):
            return sdpa(q, k, v, bias)
        return sageattn(q, k, v, tensor_layout="NHD")

    return sage


_MAKERS = {"flash": _flash, "sage": _sage}
BACKENDS = ("sdpa", *_MAKERS, "auto")


def get_backend(name: str) -> Attention:
    """The backend of this name.

    Args:
        name: sdpa; flash or sage, which need CUDA and their package; auto: flash where it can be used, else sdpa. sage
            computes scores in 8 bits, which changes the clip, so it is never chosen by itself.
    Raises:
        InputError: no such backend, or it cannot be used here.
    """
    if name not in BACKENDS:
        raise InputError(f"attention is {quoted(name)}", "one of " + ", ".join(BACKENDS))
    if name == "sdpa":
        return sdpa
    try:
        if not torch.cuda.is_available():
            raise ImportError("no CUDA device")
        return _MAKERS["flash" if name == "auto" else name]()
    except (ImportError, OSError) as error:  # OSError: built for another torch
        if name == "auto":
            return sdpa
        raise InputError(
            f"attention {quoted(name)} cannot be used here ({error})", "CUDA and its package", 'Use "auto" or "sdpa"'
        ) from error


class _Attends(Protocol):
    attention: Attention


def use_attention(model: nn.Module, backend: Attention) -> None:
    """Let every block of a transformer attend with `backend`."""
    for module in model.modules():
        if hasattr(module, "attention"):
            cast(_Attends, module).attention = backend
