"""Pixel, latent and token sizes; which sizes, frame counts and other numbers are legal."""

import math
from dataclasses import dataclass

from .config import DiTConfig, VAEConfig
from .errors import InputError
from .validate import either, whole_number

LONGEST_SEQUENCE = 1 << 22  # tokens; 321 frames of 720p are 0.3 million, and their noise takes 75 MB
ROPE_POSITIONS = 1024  # official RoPE table length along each axis; nothing beyond it was trained


@dataclass(frozen=True)
class VideoShape:
    """A legal clip: `frames` frames of `width` × `height` pixels."""

    frames: int
    height: int
    width: int

    def latent(self, vae: VAEConfig) -> tuple[int, int, int, int]:
        """(z, T, h, w) of the clip's latent."""
        stride = vae.space_stride
        return vae.z_channels, latent_frames(self.frames), self.height // stride, self.width // stride

    def tokens(self, vae: VAEConfig, dit: DiTConfig) -> int:
        """Length of the transformer's sequence."""
        return math.prod(size // patch for size, patch in zip(self.latent(vae)[1:], dit.patch, strict=True))


def latent_frames(frames: int) -> int:
    """Latent frames that `frames` video frames become: 1 + floor((frames − 1) / 4)."""
    return 1 + (frames - 1) // 4


def video_frames(latents: int) -> int:
    """Video frames that `latents` latent frames decode to: 4n − 3."""
    return 4 * latents - 3


def size_multiple(vae: VAEConfig, dit: DiTConfig) -> int:
    """Width and height must be multiples of this: 16 for the 14B models, 32 for the 5B."""
    return vae.space_stride * dit.patch[1]


def nearest_frames(frames: int) -> tuple[int, ...]:
    """The legal frame counts (4n + 1) at and around `frames`."""
    below = 4 * ((frames - 1) // 4) + 1
    return (below,) if below == frames else (below, below + 4)


def nearest_sizes(size: int, multiple: int) -> tuple[int, ...]:
    """The multiples of `multiple` at and around `size`, above zero."""
    below = size // multiple * multiple
    return (size,) if below == size else tuple(n for n in (below, below + multiple) if n)


def check_shape(frames: int, height: int, width: int, vae: VAEConfig, dit: DiTConfig) -> VideoShape:
    """The clip as a VideoShape.

    Raises:
        InputError: naming the nearest size or frame count that the model can make.
    """
    multiple = size_multiple(vae, dit)
    longest = ROPE_POSITIONS * multiple
    frames = whole_number("num_frames", frames, 1, video_frames(ROPE_POSITIONS))
    height = whole_number("height", height, 1, longest)
    width = whole_number("width", width, 1, longest)
    if height % multiple or width % multiple:
        raise InputError(
            f"the size is {width}×{height} (width × height)",
            f"multiples of {multiple}",
            f"The nearest legal width is {either(nearest_sizes(width, multiple))}, "
            f"height {either(nearest_sizes(height, multiple))}",
        )
    if frames % 4 != 1:
        raise InputError(
            f"num_frames is {frames}",
            "a multiple of 4, plus 1",
            f"The nearest count is {either(nearest_frames(frames))}",
        )
    shape = VideoShape(frames, height, width)
    tokens = shape.tokens(vae, dit)
    if tokens > LONGEST_SEQUENCE:
        raise InputError(
            f"{frames} frames of {width}×{height} are {tokens:,} tokens",
            f"at most {LONGEST_SEQUENCE:,}",
            "Make it smaller or shorter",
        )
    return shape


def area_size(image_height: int, image_width: int, area: int, multiple: int = 16) -> tuple[int, int]:
    """(height, width) of about `area` pixels with the image's proportions, as image-to-video chooses it.

    Source: Wan2.2 wan/image2video.py; both floors and the order of the square roots matter, so that
    832×480 at an area of 480·832 becomes 832×464.
    """
    ratio = image_height / image_width
    half = multiple // 2
    height = int(math.sqrt(area * ratio)) // half // 2 * multiple
    width = int(math.sqrt(area / ratio)) // half // 2 * multiple
    return max(multiple, height), max(multiple, width)


def cover_size(image_height: int, image_width: int, area: int, multiple: int = 32) -> tuple[int, int]:
    """(height, width) of at most `area` pixels with nearly the image's proportions, as TI2V-5B chooses it.

    Floors the width first or the height first, whichever changes the proportions less (a tie: height first).
    Source: Wan2.2 wan/utils/utils.py best_output_size.
    """
    ratio = image_width / image_height
    ideal_width = math.sqrt(area * ratio)
    ideal_height = area / ideal_width
    width1 = max(multiple, int(ideal_width // multiple * multiple))
    height1 = max(multiple, int(area / width1 // multiple * multiple))
    height2 = max(multiple, int(ideal_height // multiple * multiple))
    width2 = max(multiple, int(area / height2 // multiple * multiple))
    error1 = max(ratio / (width1 / height1), (width1 / height1) / ratio)
    error2 = max(ratio / (width2 / height2), (width2 / height2) / ratio)
    return (height1, width1) if error1 < error2 else (height2, width2)
