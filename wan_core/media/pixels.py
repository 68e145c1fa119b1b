"""Values of pixels: [-1, 1] in the model, [0, 1] for callers, 8 bits in files."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..validate import finite


def to_uint8(video: Tensor) -> np.ndarray:
    """A decoded chunk (3, T, H, W) in [-1, 1] → (T, H, W, 3) uint8, truncated as officially (0 becomes 127).

    Raises:
        NumericalError: NaN or infinity.
    """
    return unit_to_uint8(((video.float() + 1) / 2).permute(1, 2, 3, 0).cpu().numpy())


def unit_to_uint8(frames: np.ndarray) -> np.ndarray:
    """Values in [0, 1] → uint8, truncated.

    Raises:
        NumericalError: NaN or infinity, which would be black or white in the file.
    """
    return (finite(frames).clip(0, 1) * 255).astype(np.uint8)


def from_uint8(pixels: Tensor) -> Tensor:
    """8-bit values → float32 in [-1, 1], as torchvision's ToTensor and Normalize(0.5, 0.5) round them."""
    return (pixels.float() / 255 - 0.5) / 0.5


def is_unit(values: np.ndarray) -> bool:
    """Whether floats are finite and within [0, 1]; a thousandth beyond is rounding. True for no values."""
    return not values.size or bool(np.isfinite(values).all() and -1e-3 <= values.min() <= values.max() <= 1.001)


def clip_to_uint8(frames) -> np.ndarray:
    """Frames in any form → (T, H, W, 3) uint8."""
    if not isinstance(frames, (Tensor, np.ndarray)):
        frames = [_as_array(frame) for frame in frames] if isinstance(frames, Iterable) else []
        if len({frame.shape for frame in frames}) != 1:
            raise InputError("no frames, or frames of different sizes", "frames of one size (H, W, 3)")
        frames = np.stack(frames)
    frames = _as_array(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise InputError(
            f"frames of shape {frames.shape}",
            "one clip (T, H, W, 3) with at least one frame",
            "Pass out.frames[0], not out.frames",
        )
    if frames.dtype == np.uint8:
        return frames
    if frames.dtype.kind != "f" or not is_unit(frames):
        raise InputError(
            f"frames of {frames.dtype} with values from {frames.min()} to {frames.max()}", "uint8, or floats in [0, 1]"
        )
    return np.stack([unit_to_uint8(frame.astype(np.float32)) for frame in frames])


def _as_array(frames) -> np.ndarray:
    if isinstance(frames, Tensor):
        frames = frames.detach().cpu()
        return (frames.float() if frames.is_floating_point() else frames).numpy()
    return np.asarray(frames)
