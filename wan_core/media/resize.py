"""Images at the size that a model works at: one way for each task, as the official code does it."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from .pixels import from_uint8


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Stretch (3, H, W) as image-to-video does: bicubic, no antialiasing, no clamp.

    Source: Wan2.2 wan/image2video.py.
    """
    if image.shape[1:] == (height, width):
        return image
    return interpolate(image[None], size=(height, width), mode="bicubic")[0]


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
    pixels = np.array(picture.crop((left, top, left + width, top + height)))
    return from_uint8(torch.from_numpy(pixels).permute(2, 0, 1))


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
    canvas[:, top : top + size[0], left : left + size[1]] = interpolate(image[None], size=size, mode="bilinear")[0]
    return canvas


def crop_and_scale(image: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Crop the centre of (C, H, W) to the proportions of the size, then scale it without antialiasing, as the
    conditions of Fun-Control ("bilinear") and Bernini-R ("area") are made.

    Source: ComfyUI comfy/utils.py common_upscale with a crop at the centre.
    """
    if image.shape[1:] == (height, width):
        return image
    own_height, own_width = image.shape[1:]
    ratio, own_ratio = width / height, own_width / own_height
    # In this order: half a pixel is rounded as its float error says.
    left = round((own_width - own_width * (ratio / own_ratio)) / 2) if own_ratio > ratio else 0
    top = round((own_height - own_height * (own_ratio / ratio)) / 2) if own_ratio < ratio else 0
    image = image[:, top : own_height - top, left : own_width - left]
    return interpolate(image[None], size=(height, width), mode=mode)[0]


def within_long_edge(image: Tensor, longest: int = 848, multiple: int = 16) -> Tensor:
    """Scale (C, H, W) to at most `longest` pixels and to multiples of `multiple`, by areas, as Bernini-R does with
    reference images.

    Source: ComfyUI comfy_extras/nodes_bernini.py.
    """
    scale = min(longest / max(image.shape[1:]), 1.0)
    size = tuple(max(multiple, round(side * scale / multiple) * multiple) for side in image.shape[1:])
    return image if image.shape[1:] == size else interpolate(image[None], size=size, mode="area")[0]


def cover_smoothly(image: Tensor, height: int, width: int) -> Tensor:
    """Scale (C, H, W) to cover the size, bilinear with antialiasing, and crop the centre."""
    if image.shape[1:] == (height, width):
        return image
    scale = max(height / image.shape[1], width / image.shape[2])
    size = max(height, round(image.shape[1] * scale)), max(width, round(image.shape[2] * scale))
    image = interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return image[:, top : top + height, left : left + width]
