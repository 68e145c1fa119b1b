"""Procedural clips for the demo model: one flat shape that moves over a flat background, and sentences that say so."""

import itertools
import random
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE, FRAMES = 64, 17
TRAVEL = 26  # pixels from the first to the last frame

SHAPES = {"circle": "圆形", "square": "正方形", "triangle": "三角形", "cross": "十字"}
COLOURS = {
    "red": ("红色", (0.90, 0.10, 0.10)),
    "green": ("绿色", (0.10, 0.80, 0.20)),
    "blue": ("蓝色", (0.15, 0.30, 1.00)),
    "yellow": ("黄色", (1.00, 0.88, 0.10)),
    "purple": ("紫色", (0.75, 0.20, 0.90)),
    "white": ("白色", (1.00, 1.00, 1.00)),
}
BACKGROUNDS = {
    "black": ("黑色", (0.03, 0.03, 0.03)),
    "gray": ("灰色", (0.45, 0.45, 0.45)),
    "navy": ("深蓝色", (0.05, 0.07, 0.30)),
    "brown": ("棕色", (0.35, 0.20, 0.10)),
    "teal": ("青色", (0.05, 0.38, 0.38)),
}
MOTIONS = {
    "right": ("moves to the right", "向右移动", (1, 0)),
    "left": ("moves to the left", "向左移动", (-1, 0)),
    "up": ("moves up", "向上移动", (0, -1)),
    "down": ("moves down", "向下移动", (0, 1)),
    "still": ("stays still", "静止不动", (0, 0)),
}
ENGLISH = (
    "A {colour} {shape} {motion} on a {background} background",
    "a {colour} {shape} {motion} over a {background} background",
    "On a {background} background, a {colour} {shape} {motion}",
    "A {colour} {shape} {motion}",
    "The {shape} is {colour} and {motion}, the background is {background}",
)
CHINESE = (
    "一个{colour}的{shape}在{background}背景上{motion}",
    "{background}背景上，{colour}的{shape}{motion}",
    "{colour}{shape}{motion}，背景是{background}",
    "一个{colour}的{shape}{motion}",
)


@dataclass(frozen=True)
class Scene:
    """What a clip shows; each word is a key of the tables above."""

    shape: str
    colour: str
    motion: str
    background: str

    def caption(self, template: str) -> str:
        """The sentence in the template's language."""
        if template in CHINESE:
            words = (
                SHAPES[self.shape],
                COLOURS[self.colour][0],
                MOTIONS[self.motion][1],
                BACKGROUNDS[self.background][0],
            )
        else:
            words = self.shape, self.colour, MOTIONS[self.motion][0], self.background
        return template.format(**dict(zip(("shape", "colour", "motion", "background"), words, strict=True)))

    @property
    def held_out(self) -> bool:
        """Whether this combination of shape, colour and motion is kept from training: one of six."""
        places = (
            list(table).index(word)
            for table, word in ((SHAPES, self.shape), (COLOURS, self.colour), (MOTIONS, self.motion))
        )
        return sum(places) % 6 == 0


SCENES = tuple(itertools.starmap(Scene, itertools.product(SHAPES, COLOURS, MOTIONS, BACKGROUNDS)))


@dataclass(frozen=True)
class Placement:
    """Where an object is, in pixels: the centre in the middle of the clip, and half its width."""

    x: float
    y: float
    radius: float

    @classmethod
    def draw(cls, rng: random.Random, motion: str) -> "Placement":
        """A place that keeps the object in the frame throughout."""
        radius = rng.uniform(11.0, 14.0)
        spread = [SIZE / 2 - radius - 2 - abs(step) * TRAVEL / 2 for step in MOTIONS[motion][2]]
        return cls(*(SIZE / 2 + rng.uniform(-1, 1) * min(room, 12) for room in spread), radius)


def distance(shape: str, dx: Tensor, dy: Tensor, radius: float) -> Tensor:
    """Signed distance in pixels from the outline, negative inside; dx and dy from the centre, y downwards."""
    if shape == "circle":
        return (dx * dx + dy * dy).sqrt() - radius
    if shape == "square":
        return torch.maximum(dx.abs(), dy.abs()) - 0.9 * radius
    if shape == "triangle":  # point upwards
        return torch.maximum(dy - 0.72 * radius, 0.875 * dx.abs() - 0.484 * dy - 0.52 * radius)
    arm = 0.34 * radius
    upright = torch.maximum(dx.abs() - arm, dy.abs() - radius)
    return torch.minimum(upright, torch.maximum(dx.abs() - radius, dy.abs() - arm))


def draw(
    scene_shape: str, motion: str, place: Placement, colour, background, frames: int = FRAMES
) -> tuple[Tensor, Tensor]:
    """A clip (3, T, H, W) in [-1, 1] and the object's coverage (1, T, H, W) in [0, 1]; colours are RGB in [0, 1]."""
    time = torch.linspace(-0.5, 0.5, frames).view(-1, 1, 1) if frames > 1 else torch.zeros(1, 1, 1)
    step_x, step_y = MOTIONS[motion][2]
    axis = torch.arange(SIZE) + 0.5
    dx = axis.view(1, 1, -1) - (place.x + step_x * TRAVEL * time)
    dy = axis.view(1, -1, 1) - (place.y + step_y * TRAVEL * time)
    dx, dy = torch.broadcast_tensors(dx, dy)
    cover = (0.5 - distance(scene_shape, dx, dy, place.radius)).clamp(0, 1)[None]
    colour, background = (torch.tensor(c, dtype=torch.float32).view(3, 1, 1, 1) for c in (colour, background))
    return 2 * (background + cover * (colour - background)) - 1, cover


def clip(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """A clip of the scene at a random place, and the object's coverage; as `draw`."""
    place = Placement.draw(rng, scene.motion)
    return draw(scene.shape, scene.motion, place, COLOURS[scene.colour][1], BACKGROUNDS[scene.background][1])
