"""Judging a decoded clip: which colour, shape and motion it shows, measured on its pixels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from scripts.demo_model.clips import COLOURS, MOTIONS, SHAPES, Placement, Scene, distance, draw
from wan_core.media.pixels import to_uint8

CONTRAST = 50  # RGB distance (0..255) from the background at which a pixel belongs to the object
MOVED = 6.0  # pixels between first and last frame, below which the object stays still
SMALLEST = 60  # pixels; the objects of the training clips cover 200 or more


@dataclass(frozen=True)
class Seen:
    """What a clip shows, in the words of `clips`; None where there is no object."""

    shape: str | None
    colour: str | None
    motion: str | None

    def agrees(self, scene: Scene) -> dict[str, bool]:
        return {name: getattr(self, name) == getattr(scene, name) for name in ("colour", "motion", "shape")}


def look(frames: np.ndarray) -> Seen:
    """Frames (T, H, W, 3) uint8 → what they show."""
    masks = [object_mask(frame) for frame in frames]
    if any(mask.sum() < SMALLEST for mask in (masks[0], masks[len(masks) // 2], masks[-1])):
        return Seen(None, None, None)
    middle = len(masks) // 2
    return Seen(_shape(masks), _colour(frames[middle], masks[middle]), _motion(masks[0], masks[-1]))


def object_mask(frame: np.ndarray) -> np.ndarray:
    """(H, W) bool: what differs from the background, which is the median of the frame's edge."""
    edge = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]]).astype(float)
    return np.linalg.norm(frame - np.median(edge, axis=0), axis=-1) > CONTRAST


def _centre(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the mask's middle, in pixels."""
    ys, xs = mask.nonzero()
    return np.array([xs.mean(), ys.mean()]) + 0.5


def _motion(first: np.ndarray, last: np.ndarray) -> str:
    move = _centre(last) - _centre(first)
    if np.abs(move).max() < MOVED:
        return "still"
    return max(MOTIONS, key=lambda name: float(np.dot(move, MOTIONS[name][2])))


def _colour(frame: np.ndarray, mask: np.ndarray) -> str:
    colour = np.median(frame[mask], axis=0) / 255
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name][1]))))


def _shape(masks: list[np.ndarray]) -> str:
    """The shape whose outline of the same area and place covers the masks best, over all frames."""
    return max(SHAPES, key=lambda shape: sum(_overlap(shape, mask) for mask in masks[:: max(1, len(masks) // 5)]))


def _overlap(shape: str, mask: np.ndarray) -> float:
    """Intersection over union with the shape of the mask's area and centre of mass."""
    if not mask.any():
        return 0.0
    area, (x, y) = float(mask.sum()), _centre(mask)
    radius = 10 * math.sqrt(area / _AREA[shape])
    drop = _DROP[shape] * radius / 10
    ys, xs = (torch.arange(size) + 0.5 for size in mask.shape)
    dy, dx = torch.meshgrid(ys - y + drop, xs - x, indexing="ij")
    outline = (distance(shape, dx, dy, radius) < 0).numpy()
    return float((outline & mask).sum() / (outline | mask).sum())


def _measure(shape: str) -> tuple[float, float]:
    """Area, and how far the centre of mass lies below the drawing's centre, at radius 10."""
    axis = torch.arange(-20, 20, 0.1)
    dy, dx = torch.meshgrid(axis, axis, indexing="ij")
    inside = distance(shape, dx, dy, 10.0) < 0
    return float(inside.sum()) * 0.01, float(dy[inside].mean())


_MEASURES = {shape: _measure(shape) for shape in SHAPES}
_AREA = {shape: area for shape, (area, _) in _MEASURES.items()}
_DROP = {shape: drop for shape, (_, drop) in _MEASURES.items()}


def fidelity(frames: np.ndarray, scene: Scene) -> float:
    """PSNR in dB against a drawing of the scene at the place, size and background that the clip itself shows; 0 where
    there is no object. It falls with blur, wrong colours, a bent path and a wrong shape."""
    masks = [object_mask(frame) for frame in frames]
    if any(mask.sum() < SMALLEST for mask in masks):
        return 0.0
    middle = (_centre(masks[0]) + _centre(masks[-1])) / 2
    radius = 10 * math.sqrt(np.mean([mask.sum() for mask in masks]) / _AREA[scene.shape])
    place = Placement(float(middle[0]), float(middle[1] - _DROP[scene.shape] * radius / 10), float(radius))
    edge = np.concatenate([frames[:, 0], frames[:, -1]]).reshape(-1, 3)
    background = tuple(np.median(edge, axis=0) / 255)
    drawn = draw(scene.shape, scene.motion, place, COLOURS[scene.colour][1], background, len(frames))[0]
    return psnr(frames, to_uint8(drawn))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """In dB, of uint8 pictures."""
    error = np.square(one.astype(float) - other).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def interval(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95% confidence interval of a share."""
    z, p = 1.96, successes / count
    middle, spread = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return (middle - spread) / (1 + z * z / count), (middle + spread) / (1 + z * z / count)


def shares(verdicts: Iterable[dict[str, bool]]) -> dict[str, str]:
    """Such as {"colour": "57/60 (95%, 86 to 98%)"}."""
    verdicts = list(verdicts)
    table = {}
    for name in verdicts[0]:
        good = sum(verdict[name] for verdict in verdicts)
        low, high = interval(good, len(verdicts))
        table[name] = f"{good}/{len(verdicts)} ({good / len(verdicts):.0%}, {low:.0%} to {high:.0%})"
    return table
