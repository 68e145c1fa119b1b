"""Images and clips that a caller passes in, brought to tensors of the size that the model works at."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError, VideoError
from ..video import iter_video, video_info


def load_image(source, name: str = "image") -> Tensor:
    """An image as (3, H, W) float32 in [-1, 1].

    Args:
        source: path, PIL image, (H, W, 3) array (uint8, or float in [0, 1]; grey and alpha too), or (3, H, W) tensor
            (uint8, or float in [-1, 1]).
        name: what to call it in errors.
    Raises:
        InputError: not an image.
    """
    if isinstance(source, (str, Path)):
        try:
            with Image.open(source) as opened:
                source = ImageOps.exif_transpose(opened).convert("RGB")
        except FileNotFoundError as error:
            raise InputError(f"{name}: {source} does not exist", "an image file") from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{name}: {source} is not an image that can be read", "a PNG, JPEG or WebP file"
            ) from error
    if isinstance(source, Image.Image):
        source = np.asarray(source.convert("RGB"))
    if isinstance(source, np.ndarray):
        if source.dtype.kind not in "uif":
            raise InputError(f"{name} is an array of {source.dtype}", "uint8, or floats in [0, 1]")
        if (
            source.dtype.kind == "f"
            and source.size
            and not (np.isfinite(source).all() and -1e-3 <= source.min() <= source.max() <= 1.001)
        ):
            raise InputError(
                f"{name} is an array with values from {source.min():g} to {source.max():g}",
                "uint8, or floats in [0, 1]",
            )
        source = torch.from_numpy(np.array(source))  # a copy: torch warns of arrays that cannot be written to
        source = source[..., None] if source.ndim == 2 else source  # grey
        if source.ndim == 3 and source.shape[2] in (1, 3, 4):
            source = source[..., :3].movedim(2, 0).expand(3, -1, -1)
            source = source if source.dtype == torch.uint8 else source.float() * 2 - 1
    if isinstance(source, Tensor) and source.ndim == 4 and len(source) == 1:
        source = source[0]
    if not isinstance(source, Tensor) or source.ndim != 3 or source.shape[0] != 3 or not source.numel():
        shape = f" of shape {tuple(source.shape)}" if hasattr(source, "shape") else ""
        raise InputError(f"{name} is a {type(source).__name__}{shape}", "a path, a PIL image, or a (3, H, W) tensor")
    if source.dtype == torch.uint8:
        return (source.float() / 255 - 0.5) / 0.5
    image = source.detach().cpu().float()
    if not torch.isfinite(image).all() or image.abs().max() > 1.001:
        raise InputError(
            f"{name} has values from {image.min():g} to {image.max():g}", "values in [-1, 1], or 8-bit pixels (uint8)"
        )
    return image


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
        return tuple(source.shape[1:])
    shape = f" of shape {tuple(source.shape)}" if hasattr(source, "shape") else ""
    raise InputError(
        f"{name} is a {type(source).__name__}{shape}", "a path, a list of images, or a (3, T, H, W) tensor"
    )


def load_video(source, frames: int, height: int, width: int, name: str = "video") -> Tensor:
    """The first frames of a clip at the wanted size, (3, T, H, W) float32 in [-1, 1]; scaled one frame at a time.

    Args:
        source: what `clip_info` takes.
    Raises:
        InputError: not a clip, or too short. VideoError: a file that cannot be read.
    """
    if clip_info(source, name)[0] < frames:
        raise InputError(f"{name} has {clip_info(source, name)[0]} frames", f"{frames}, as many as num_frames")
    if isinstance(source, (str, Path)):
        images = iter_video(source, frames)
    elif isinstance(source, Tensor):
        images = source[:, :frames].unbind(1)
    else:
        images = source[:frames]
    video = torch.empty(3, frames, height, width)
    count = 0
    for image in images:
        video[:, count] = cover_smoothly(load_image(image, f"{name}[{count}]"), height, width)
        count += 1
    if count < frames:
        raise VideoError(f"{name} can be read for {count} of its frames", f"{frames}, as many as num_frames")
    return video


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
        mask = source.squeeze(-1).float() if source.shape[-1:] == (1,) and source.ndim > 2 else source.float()
        if not source.is_floating_point() and mask.numel() and mask.max() > 1:
            mask = mask / 255
        mask = mask[None, None] if mask.ndim == 2 else mask[None] if mask.ndim == 3 else mask
        usable = mask.ndim == 4 and mask.shape[0] == 1 and mask.numel() and torch.isfinite(mask).all()
        if not usable or mask.min() < 0 or mask.max() > 1:
            raise InputError(f"{name} of shape {tuple(source.shape)}", "(1, T, H, W) with values in [0, 1]")
    elif _is_still(source):
        mask = (load_image(source, name)[:, None].mean(dim=0, keepdim=True) + 1) / 2
    else:
        mask = (load_video(source, frames, height, width, name).mean(dim=0, keepdim=True) + 1) / 2
    if mask.shape[1] not in (1, frames):
        raise InputError(f"{name} has {mask.shape[1]} frames", f"1 or {frames}, as many as the clip")
    mask = torch.cat([cover_smoothly(mask[:, i], height, width)[:, None] for i in range(mask.shape[1])], dim=1)
    return mask.clamp(0, 1).expand(-1, frames, -1, -1)


def _is_still(source) -> bool:
    if isinstance(source, (str, Path)):
        return Path(source).suffix.lower() in Image.registered_extensions()
    return isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim == 3)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Stretch (3, H, W) as image-to-video does: bicubic, no antialiasing, no clamp.

    Source: Wan2.2 wan/image2video.py.
    """
    if image.shape[1:] == (height, width):
        return image
    return F.interpolate(image[None], size=(height, width), mode="bicubic")[0]


def cover(image: Tensor, height: int, width: int) -> Tensor:
    """Scale (3, H, W) to cover the size, Lanczos on 8 bits, and crop the centre, as TI2V-5B does.

    Source: Wan2.2 wan/textimage2video.py i2v.
    """
    if image.shape[1:] == (height, width):
        return image
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    scale = max(width / picture.width, height / picture.height)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return load_image(picture.crop((left, top, left + width, top + height)))


def fit_on_white(image: Tensor, height: int, width: int) -> Tensor:
    """Scale (3, H, W) to fit inside the size, bilinear, centred on white, as VACE does with references.

    Source: Wan2.1 wan/vace.py prepare_source.
    """
    if image.shape[1:] == (height, width):
        return image
    scale = min(height / image.shape[1], width / image.shape[2])
    size = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[2] * scale))
    canvas = image.new_ones(3, height, width)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    canvas[:, top : top + size[0], left : left + size[1]] = F.interpolate(image[None], size=size, mode="bilinear")[0]
    return canvas


def cover_smoothly(image: Tensor, height: int, width: int) -> Tensor:
    """Scale (C, H, W) to cover the size, bilinear with antialiasing, and crop the centre."""
    if image.shape[1:] == (height, width):
        return image
    scale = max(height / image.shape[1], width / image.shape[2])
    size = max(height, round(image.shape[1] * scale)), max(width, round(image.shape[2] * scale))
    image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return image[:, top : top + height, left : left + width]
