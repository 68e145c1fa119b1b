"""The block formats of GGML: a block of 32 or 256 weights shares its scales.

Source: the structures and dequantize_row functions of ggml/src/ggml-quants.c.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class BlockFormat(NamedTuple):
    """One format; `dequantize` takes blocks (n, size) uint8 to weights (n, weights) float32."""

    weights: int  # in a block
    size: int  # bytes of a block
    dequantize: Callable[[Tensor], Tensor]


def _half(block: Tensor, start: int) -> Tensor:
    """The float16 that starts at a byte, (n, 1) float32."""
    return block[:, start : start + 2].contiguous().view(torch.float16).float()


def _fields(packed: Tensor, bits: int) -> Tensor:
    """(…, m) uint8 → (…, 8 / bits, m): the fields of each byte, lowest first."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device).unsqueeze(-1)
    return (packed.unsqueeze(-2) >> shifts) & (2**bits - 1)


def _nibbles(packed: Tensor) -> Tensor:
    """(n, m) uint8 → (n, 2m): all low nibbles, then all high ones."""
    return _fields(packed, 4).flatten(1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """(n, 4) uint8 → (n, 32): the bits of a little-endian word, worth 16 each."""
    return _fields(packed, 1).transpose(1, 2).flatten(1) << 4


def _q4_0(b: Tensor) -> Tensor:
    return (_nibbles(b[:, 2:]).float() - 8) * _half(b, 0)


def _q4_1(b: Tensor) -> Tensor:
    return _nibbles(b[:, 4:]).float() * _half(b, 0) + _half(b, 2)


def _q5_0(b: Tensor) -> Tensor:
    return ((_nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6])).float() - 16) * _half(b, 0)


def _q5_1(b: Tensor) -> Tensor:
    return (_nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8])).float() * _half(b, 0) + _half(b, 2)


def _q8_0(b: Tensor) -> Tensor:
    return b[:, 2:].contiguous().view(torch.int8).float() * _half(b, 0)


def _two_bits(packed: Tensor) -> Tensor:
    """(n, 64) uint8 → (n, 256): 32 bytes hold four runs of 32."""
    return _fields(packed.unflatten(1, (2, 32)), 2).flatten(1)


def _grouped(quants: Tensor, scale: Tensor) -> Tensor:
    """(n, 256) and scales (n, groups) float32 → (n, 256) float32."""
    return (quants.float().unflatten(1, (scale.shape[1], -1)) * scale.unsqueeze(-1)).flatten(1)


def _spread(minimum: Tensor) -> Tensor:
    """(n, groups) → (n, 256)."""
    return minimum.repeat_interleave(256 // minimum.shape[1], dim=1)


def _q2_k(b: Tensor) -> Tensor:
    scales, d, dmin = b[:, :16], _half(b, 80), _half(b, 82)
    return _grouped(_two_bits(b[:, 16:80]), d * (scales & 15)) - _spread(dmin * (scales >> 4))


def _q3_k(b: Tensor) -> Tensor:
    low, high = _nibbles(b[:, 96:104]), _fields(b[:, 104:108], 2).flatten(1)
    scales = (low | (high << 4)).float() - 32
    third = _fields(b[:, :32], 1).flatten(1)  # bit k is of the k-th run of 32
    return _grouped((_two_bits(b[:, 32:96]) | (third << 2)).float() - 4, _half(b, 108) * scales)


def _scales_and_minima(b: Tensor) -> tuple[Tensor, Tensor]:
    """Of Q4_K and Q5_K: eight 6-bit scales and eight minima in twelve bytes, (n, 8) float32 each."""
    first, second, third = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scales = torch.cat((first & 63, (third & 15) | ((first >> 6) << 4)), dim=1)
    minima = torch.cat((second & 63, (third >> 4) | ((second >> 6) << 4)), dim=1)
    return _half(b, 0) * scales, _half(b, 2) * minima


def _q4_k(b: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(b)
    return _grouped(_fields(b[:, 16:].unflatten(1, (4, 32)), 4).flatten(1), scales) - _spread(minima)


def _q5_k(b: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(b)
    low = _fields(b[:, 48:].unflatten(1, (4, 32)), 4).flatten(1)
    return _grouped(low | (_fields(b[:, 16:48], 1).flatten(1) << 4), scales) - _spread(minima)


def _q6_k(b: Tensor) -> Tensor:
    low = _fields(b[:, :128].unflatten(1, (2, 64)), 4).flatten(1)
    high = _fields(b[:, 128:192].unflatten(1, (2, 32)), 2).flatten(1)
    scales = b[:, 192:208].contiguous().view(torch.int8)
    return _grouped((low | (high << 4)).float() - 32, _half(b, 208) * scales)


FORMATS = {
    "Q4_0": BlockFormat(32, 18, _q4_0),
    "Q4_1": BlockFormat(32, 20, _q4_1),
    "Q5_0": BlockFormat(32, 22, _q5_0),
    "Q5_1": BlockFormat(32, 24, _q5_1),
    "Q8_0": BlockFormat(32, 34, _q8_0),
    "Q2_K": BlockFormat(256, 84, _q2_k),
    "Q3_K": BlockFormat(256, 110, _q3_k),
    "Q4_K": BlockFormat(256, 144, _q4_k),
    "Q5_K": BlockFormat(256, 176, _q5_k),
    "Q6_K": BlockFormat(256, 210, _q6_k),
}
