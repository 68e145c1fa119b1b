"""Devices and dtypes as callers name them."""

import torch

from .errors import InputError, excerpt, quoted


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable_device(device: torch.device | str | None) -> torch.device:
    """`device`, or the default one for None, as a torch.device that this machine has; or an InputError."""
    try:
        device = default_device() if device is None else torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        fix = (
            "Use cpu"
            if not torch.cuda.is_available()
            else f"Use cuda:0 to cuda:{torch.cuda.device_count() - 1}, or cpu"
        )
        named = excerpt(device) if isinstance(device, (str, torch.device)) else quoted(device)
        raise InputError(f"the device {named} cannot be used here", "a device that torch has", fix) from error
    return device


def usable_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """float32, bfloat16 or float16, by torch's object or its name; None or "auto": None, as stored."""
    if dtype is None or dtype == "auto":
        return None
    usable = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = usable.get(dtype) if isinstance(dtype, str) else dtype
    if found not in usable.values():
        raise InputError(f"torch_dtype is {quoted(dtype)}", "torch.bfloat16, torch.float16 or torch.float32")
    return found
