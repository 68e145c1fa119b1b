"""A folder of clips with captions, as training takes it: `name.mp4` (or an image) beside `name.txt`."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointNotFound, InputError
from ..media.images import clip_info, load_image, load_video
from ..media.resize import resize

VIDEOS, IMAGES = {".mp4", ".mov", ".mkv", ".webm", ".gif"}, {".png", ".jpg", ".jpeg", ".webp"}


def list_clips(folder: str | Path) -> list[Path]:
    """The clips and images of a folder, in the order of their names.

    Raises:
        CheckpointNotFound: no such folder, or nothing in it.
    """
    folder = Path(folder)
    files = sorted(f for f in folder.glob("*") if f.suffix.lower() in VIDEOS | IMAGES) if folder.is_dir() else []
    if not files:
        raise CheckpointNotFound(
            f"{folder} has no clips", "a folder with videos or images, and a .txt caption beside each"
        )
    return files


def captions_of(clip: Path) -> list[str]:
    """The captions of a clip: one a line in the .txt file of its name.

    Raises:
        InputError: there is none.
    """
    file = clip.with_suffix(".txt")
    lines = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()] if file.is_file() else []
    if not lines:
        raise InputError(f"{clip.name} has no caption", f"its description in {file.name}")
    return lines


def read_clip(file: Path, frames: int, height: int, width: int) -> Tensor:
    """The first `frames` frames (3, T, H, W) in [-1, 1], resized; an image is a clip of one frame.

    Raises:
        InputError: a clip that is too short.
    """
    if file.suffix.lower() in IMAGES:
        return resize(load_image(str(file)), height, width)[:, None]
    found = clip_info(str(file))[0]
    if found < frames:
        raise InputError(
            f"{file.name} has {found} frames", f"at least {frames}", "Remove it, or pass a smaller --frames"
        )
    return load_video(str(file), frames, height, width)


def crops(clips: Sequence[Tensor], count: int, frames: int, side: int, rng: random.Random) -> Tensor:
    """Random cut-outs (B, 3, T, side, side) of clips (3, T, H, W) that are long enough.

    Raises:
        InputError: no clip has so many frames.
    """
    long_enough = [clip for clip in clips if clip.shape[1] >= frames]
    if not long_enough or min(min(clip.shape[2:]) for clip in long_enough) < side:
        raise InputError(
            f"no clips of {frames} frames and {side} pixels", "longer or larger clips", "Pass smaller numbers"
        )
    cut = []
    for _ in range(count):
        clip = rng.choice(long_enough)
        t, y, x = (rng.randrange(size - part + 1) for size, part in zip(clip.shape[1:], (frames, side, side)))
        cut.append(clip[:, t : t + frames, y : y + side, x : x + side])
    return torch.stack(cut)
