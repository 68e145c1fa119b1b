"""What a caller passes in, checked against a model's task and brought to the clip's size; no weights are needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..config import Preset
from ..errors import InputError
from ..media.images import clip_info, load_image, load_mask, load_video
from ..media.resize import cover, fit_on_white, resize
from ..shapes import ROPE_POSITIONS, area_size, cover_size, size_multiple
from ..validate import whole_number
from .options import Options
from .request import Request

TASKS = {
    "t2v": "text-to-video",
    "i2v": "image-to-video",
    "ti2v": "text-and-image-to-video (TI2V-5B)",
    "vace": "video-condition (VACE)",
}
TAKES = {"t2v": (), "i2v": ("image", "last_image"), "ti2v": ("image",), "vace": ("video", "mask", "reference_images")}


@dataclass(frozen=True)
class Inputs:
    """A request, and the images, frames and masks that come with it.

    Attributes:
        image, last_image: (3, H, W) in [-1, 1].
        video: (3, T, H, W) in [-1, 1]. mask: (1, T, H, W) in [0, 1].
        references: images (3, H, W) in [-1, 1].
    """

    request: Request
    image: Tensor | None = None
    last_image: Tensor | None = None
    video: Tensor | None = None
    mask: Tensor | None = None
    references: tuple[Tensor, ...] = ()

    @classmethod
    def resolve(cls, preset: Preset, options: Options) -> "Inputs":
        """Check everything that was passed and load it.

        Raises:
            InputError: naming the argument, its value, and what would be right.
        """
        references = _references(options)
        _check_task(preset, options, references)
        image = None if options.image is None else load_image(options.image)
        last_image = None if options.last_image is None else load_image(options.last_image, "last_image")
        references = [load_image(source, f"reference_images[{i}]") for i, source in enumerate(references)]
        request = Request.resolve(preset, _fit_to_source(preset, options, image))
        shape = request.shape
        size = shape.height, shape.width
        if last_image is not None and shape.frames < 5:
            raise InputError(f"a last_image for a clip of {shape.frames} frame", "at least 5 frames")
        fit = cover if preset.task == "ti2v" else resize
        return cls(
            request,
            image=None if image is None else fit(image, *size),
            last_image=None if last_image is None else fit(last_image, *size),
            mask=None if options.mask is None else load_mask(options.mask, shape.frames, *size),
            video=None if options.video is None else load_video(options.video, shape.frames, *size),
            references=tuple(fit_on_white(reference, *size) for reference in references),
        )


def _references(options: Options) -> list[Any]:
    """The reference images; a single one may be given without a list."""
    given = options.reference_images
    references = list(given) if isinstance(given, (list, tuple)) else [given]
    return [reference for reference in references if reference is not None]


def _check_task(preset: Preset, options: Options, references: Sequence[Any]) -> None:
    """Refuse inputs that this model's task does not have, and ask for those it needs."""
    task, channels = preset.task, preset.dit.in_channels
    given = [name for name in ("image", "last_image", "video", "mask") if getattr(options, name) is not None]
    for name in [*given, *(["reference_images"] if references else [])]:
        if name not in TAKES[task]:
            homes = " or ".join(TASKS[other] for other, names in TAKES.items() if name in names)
            raise InputError(
                f"{name} was given, but this is a {TASKS[task]} model ({channels} input channels)",
                f"a model for {homes}",
                f"Leave {name} out, or load that model",
            )
    if task == "i2v" and options.image is None:
        raise InputError(
            f"no image for an {TASKS[task]} model ({channels} input channels)",
            "image, the first frame",
            "Pass image=, or load a text-to-video model",
        )


def _fit_to_source(preset: Preset, options: Options, image: Tensor | None) -> Options:
    """The options with what is missing of frames and size taken from the given image or video."""
    frames = options.num_frames
    if image is not None:
        _, height, width = image.shape
    elif options.video is not None:
        count, height, width = clip_info(options.video)
        frames = count if frames is None else frames
    else:
        return options
    height, width = _complete_size(preset, options.height, options.width, height, width)
    return replace(options, num_frames=frames, height=height, width=width)


def _complete_size(
    preset: Preset, height: int | None, width: int | None, source_height: int, source_width: int
) -> tuple[int, int]:
    """(height, width), what is missing of it taken from the proportions of a source."""
    multiple = size_multiple(preset.vae, preset.dit)
    if height is not None and width is not None:
        return height, width
    if width is not None:
        width = whole_number("width", width, 1, ROPE_POSITIONS * multiple)
        return max(1, round(width * source_height / source_width / multiple)) * multiple, width
    if height is not None:
        height = whole_number("height", height, 1, ROPE_POSITIONS * multiple)
        return height, max(1, round(height * source_width / source_height / multiple)) * multiple
    choose = cover_size if preset.task == "ti2v" else area_size
    return choose(source_height, source_width, preset.height * preset.width, multiple)
