"""Images, clips and masks in the forms that callers have, as tensors."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError, VideoError
from .pixels import from_uint8, is_unit
from .read import iter_video, video_info
from .resize import cover_smoothly

Fit = Callable[[Tensor, int, int], Tensor]


def load_image(source, name: str = "image") -> Tensor:
    """An image as (3, H, W) float32 in [-1, 1].

    Args:
        source: path, PIL image, (H, W, 3) array (uint8, or float in [0, 1]; grey and alpha too), or (3, H, W) tensor
            (uint8, or float in [-1, 1]).
        name: what to call it in errors.
    Raises:
        InputError: not an image.
    """
    for kind, load in _LOADERS:
        if isinstance(source, kind):
            return load(source, name)
    raise _no_image(source, name)


def _from_file(path: str | Path, name: str) -> Tensor:
    try:
        if Path(path).is_fifo():
            raise OSError("opening a named pipe would block")
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{name}: {path} does not exist", "an image file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: {path} is not an image that can be read", "a PNG, JPEG or WebP file") from error
    return _from_picture(picture, name)


def _from_picture(picture: Image.Image, name: str) -> Tensor:
    return _from_array(np.asarray(picture.convert("RGB")), name)


def _from_array(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "uif":
        raise InputError(f"{name} is an array of {array.dtype}", "uint8, or floats in [0, 1]")
    if array.dtype.kind == "f" and not is_unit(array):
        found = f"values from {array.min():g} to {array.max():g}"
        raise InputError(f"{name} is an array with {found}", "uint8, or floats in [0, 1]")
    pixels = torch.from_numpy(np.array(array))  # a copy: torch warns of arrays that cannot be written to
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels  # grey
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4):
        pixels = pixels[..., :3].movedim(2, 0).expand(3, -1, -1)
        pixels = pixels if pixels.dtype == torch.uint8 else pixels.float() * 2 - 1
    return _from_tensor(pixels, name)


def _from_tensor(image: Tensor, name: str) -> Tensor:
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise _no_image(image, name)
    if image.dtype == torch.uint8:
        return from_uint8(image)
    image = image.detach().cpu().float()
    if not torch.isfinite(image).all() or image.abs().max() > 1.001:
        found = f"values from {image.min():g} to {image.max():g}"
        raise InputError(f"{name} has {found}", "values in [-1, 1], or 8-bit pixels (uint8)")
    return image


_LOADERS: tuple[tuple[type | tuple[type, ...], Callable[..., Tensor]], ...] = (
    ((str, Path), _from_file),
    (Image.Image, _from_picture),
    (np.ndarray, _from_array),
    (Tensor, _from_tensor),
)


def clip_info(source, name: str = "video") -> tuple[int, int, int]:
    """(frames, height, width) of a clip, without decoding it.

    Args:
        source: path, (T, H, W, 3) array, list of images, or (3, T, H, W) tensor in [-1, 1].
    Raises:
        InputError: not a clip. VideoError: a file that cannot be read.
    """
    if isinstance(source, (str, Path)):
        return video_info(source)
    if isinstance(source, np.ndarray) and source.ndim == 4 and source.shape[3] == 3 and len(source):
        return source.shape[:3]
    if isinstance(source, (list, tuple)) and source:
        return len(source), *load_image(source[0], f"{name}[0]").shape[1:]
    if isinstance(source, Tensor) and source.ndim == 4 and source.shape[0] == 3 and source.shape[1]:
        return source.shape[1], source.shape[2], source.shape[3]
    raise _refusal(source, name, "a path, a list of images, or a (3, T, H, W) tensor")


def load_video(source, frames: int, height: int, width: int, name: str = "video", fit: Fit = cover_smoothly) -> Tensor:
    """The first frames of a clip at the wanted size, (3, T, H, W) float32 in [-1, 1]; scaled one frame at a time.

    Args:
        source: what `clip_info` takes.
        fit: how a frame (3, H, W) gets a height and a width.
    Raises:
        InputError: not a clip, or too short. VideoError: a file that cannot be read.
    """
    available = clip_info(source, name)[0]
    if available < frames:
        raise InputError(f"{name} has {available} frames", f"{frames}, as many as num_frames")
    video = torch.empty(3, frames, height, width, dtype=torch.float32, device="cpu")
    count = 0
    for image in _first_frames(source, frames):
        video[:, count] = fit(load_image(image, f"{name}[{count}]"), height, width)
        count += 1
    if count < frames:
        raise VideoError(f"{name} can be read for {count} of its frames", f"{frames}, as many as num_frames")
    return video


def _first_frames(source, frames: int) -> Iterable:
    if isinstance(source, (str, Path)):
        return iter_video(source, frames)
    return source[:, :frames].unbind(1) if isinstance(source, Tensor) else source[:frames]


def load_mask(source, frames: int, height: int, width: int, name: str = "mask") -> Tensor:
    """A mask as (1, T, H, W) float32 in [0, 1], 1 where the model generates; a single image serves every frame.

    Args:
        source: what `load_video` or `load_image` takes (white = generate), or an array or tensor (1, T, H, W),
            (T, H, W) or (H, W) in [0, 1].
    Raises:
        InputError: no mask, or fewer frames than the clip.
    """
    if isinstance(source, np.ndarray) and source.dtype.kind in "buif" and source.shape[-1:] not in ((3,), (4,)):
        source = torch.from_numpy(np.array(source))
    if isinstance(source, Tensor):
        mask = _mask_from_tensor(source, name)
    elif _is_still(source):
        mask = (load_image(source, name)[:, None].mean(dim=0, keepdim=True) + 1) / 2
    else:
        mask = (load_video(source, frames, height, width, name).mean(dim=0, keepdim=True) + 1) / 2
    if mask.shape[1] not in (1, frames):
        raise InputError(f"{name} has {mask.shape[1]} frames", f"1 or {frames}, as many as the clip")
    mask = torch.cat([cover_smoothly(mask[:, i], height, width)[:, None] for i in range(mask.shape[1])], dim=1)
    return mask.clamp(0, 1).expand(-1, frames, -1, -1)


def _mask_from_tensor(source: Tensor, name: str) -> Tensor:
    mask = source.squeeze(-1).float() if source.shape[-1:] == (1,) and source.ndim > 2 else source.float()
    if not source.is_floating_point() and mask.numel() and mask.max() > 1:
        mask = mask / 255
    mask = mask[None, None] if mask.ndim == 2 else mask[None] if mask.ndim == 3 else mask
    usable = mask.ndim == 4 and mask.shape[0] == 1 and mask.numel() and torch.isfinite(mask).all()
    if not usable or mask.min() < 0 or mask.max() > 1:
        raise InputError(f"{name} of shape {tuple(source.shape)}", "(1, T, H, W) with values in [0, 1]")
    return mask


def _is_still(source) -> bool:
    if isinstance(source, (str, Path)):
        return Path(source).suffix.lower() in Image.registered_extensions()
    return isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim == 3)


def _no_image(source, name: str) -> InputError:
    return _refusal(source, name, "a path, a PIL image, or a (3, H, W) tensor")


def _refusal(source, name: str, needed: str) -> InputError:
    shape = f" of shape {tuple(source.shape)}" if hasattr(source, "shape") else ""
    return InputError(f"{name} is a {type(source).__name__}{shape}", needed)
