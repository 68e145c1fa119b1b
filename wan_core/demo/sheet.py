"""A contact sheet: frames of a clip side by side in one picture."""

from pathlib import Path

import numpy as np
from PIL import Image


def contact_sheet(frames: np.ndarray, columns: int = 5, scale: int = 2) -> Image.Image:
    """`columns` of the frames (T, H, W, 3) uint8, evenly spaced from the first to the last, enlarged `scale` times."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)]
    large = chosen.repeat(scale, axis=1).repeat(scale, axis=2)
    row = np.full((large.shape[1] + 4, 4 + len(large) * (large.shape[2] + 4), 3), 255, np.uint8)
    for k, frame in enumerate(large):
        left = 4 + k * (large.shape[2] + 4)
        row[2:-2, left : left + large.shape[2]] = frame
    return Image.fromarray(row)


def save_sheet(frames: np.ndarray, path: Path) -> Path:
    """Write a contact sheet as PNG and return its path."""
    contact_sheet(frames).save(path)
    return path
