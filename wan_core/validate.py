"""Numbers that a caller passes, checked and named, and those that a VAE returns."""

import math
from numbers import Integral, Real
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, NumericalError, quoted


def either(values) -> str:
    """Such as "704 or 736"."""
    return " or ".join(str(value) for value in values)


def whole_number(name: str, value, low: int, high: int) -> int:
    """`value` as an int within [low, high], or an InputError that names it."""
    is_whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if isinstance(value, bool) or not is_whole or not low <= value <= high:
        raise InputError(f"{name} is {quoted(value)}", f"a whole number from {low} to {high}")
    return int(value)


def real_number(name: str, value, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """`value` as a finite float within [low, high] (`above`: greater than low), or an InputError that names it."""
    try:
        is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        is_number = False
    if not is_number or not low <= value <= high or (above and value == low):
        limits = f"a finite number {'above' if above else 'of at least'} {low:g}"
        raise InputError(
            f"{name} is {quoted(value)}", limits + (f" and at most {high:g}" if math.isfinite(high) else "")
        )
    return float(value)


Pixels = TypeVar("Pixels", Tensor, np.ndarray)


def finite(pixels: Pixels) -> Pixels:
    """Decoded pixels as they are; to be asked before they are clamped, which makes infinity black or white.

    Raises:
        NumericalError: NaN or infinity.
    """
    if 0 in pixels.shape:
        return pixels
    if isinstance(pixels, Tensor):
        extremes = torch.stack(torch.aminmax(pixels)).tolist()  # one pass, one wait for a GPU, no memory
    else:
        extremes = [pixels.min(), pixels.max()]
    if not all(map(math.isfinite, extremes)):
        raise NumericalError(
            "the VAE returned values that are not finite",
            "finite latents and weights",
            "Decode in float32 (ComfyUI: --fp32-vae), and check the VAE file",
        )
    return pixels
