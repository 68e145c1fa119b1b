"""What each kind of model takes besides a text, as one table."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..media.images import Fit
from ..media.resize import cover, cover_smoothly, crop_and_scale, fit_on_white, resize, within_long_edge


@dataclass(frozen=True)
class Task:
    """What a kind of model takes.

    Attributes:
        title: what to call it in messages.
        takes: the inputs it knows, by their names in `Options`; `needs`: those of them that it cannot do without.
        image, video, reference: how each gets the clip's height and width.
        references: how many reference images it can have; None: any number.
        source: whether a video comes beside the clip, as tokens of its own.
    """

    title: str
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    image: Fit = resize
    video: Fit = cover_smoothly
    reference: Fit = fit_on_white
    references: int | None = None
    source: bool = False


def _at_its_own_size(image: Tensor, height: int, width: int) -> Tensor:
    return within_long_edge(image)


TASKS = {
    "t2v": Task("text-to-video"),
    "i2v": Task("image-to-video", ("image", "last_image"), needs=("image",)),
    "ti2v": Task("text-and-image-to-video (TI2V-5B)", ("image",), image=cover),
    "vace": Task("video-condition (VACE)", ("video", "mask", "reference_images")),
    "bernini": Task(
        "video-editing (Bernini-R)",
        ("video", "reference_images"),
        video=partial(crop_and_scale, mode="area"),
        reference=_at_its_own_size,
        source=True,
    ),
    "fun-control": Task(
        "controlled (Fun-Control)",
        ("video", "image", "reference_images"),
        image=crop_and_scale,
        video=crop_and_scale,
        reference=crop_and_scale,
        references=1,
    ),
    "fun-inp": Task("first-and-last-frame (Fun-InP 5B)", ("image", "last_image"), image=crop_and_scale),
    "clip-i2v": Task("Wan2.1 image-to-video", ("image",), needs=("image",)),
    "clip-flf2v": Task("Wan2.1 first-and-last-frame", ("image", "last_image"), needs=("image", "last_image")),
}
