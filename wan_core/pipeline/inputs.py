"""What a caller passes in, checked against a model's task and brought to the clip's size; no weights are needed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..config import MARKS, Preset, presets_like
from ..errors import InputError
from ..media.images import clip_info, load_image, load_mask, load_video
from ..media.resize import resize
from ..shapes import ROPE_POSITIONS, VideoShape, area_size, cover_size, size_multiple
from ..validate import whole_number
from .options import Options
from .request import Request
from .tasks import TASKS

_MEANING = {"image": "the first frame", "last_image": "the last frame"}


@dataclass(frozen=True)
class Inputs:
    """A request, and the images, frames and masks that come with it.

    Attributes:
        image, last_image: (3, H, W) in [-1, 1].
        video: (3, T, H, W) in [-1, 1]. mask: (1, T, H, W) in [0, 1].
        references: images (3, H, W) in [-1, 1].
        views: first and last frame as CLIP is shown them, (3, S, S) in [-1, 1]; of models with a vision encoder.
    """

    request: Request
    image: Tensor | None = None
    last_image: Tensor | None = None
    video: Tensor | None = None
    mask: Tensor | None = None
    references: tuple[Tensor, ...] = ()
    views: tuple[Tensor, ...] = ()

    @classmethod
    def resolve(cls, preset: Preset, options: Options) -> "Inputs":
        """Check everything that was passed and load it.

        Raises:
            InputError: naming the argument, its value, and what would be right.
        """
        task, given = TASKS[preset.task], _references(options)
        _check_task(preset, options, given)
        image = None if options.image is None else load_image(options.image)
        last_image = None if options.last_image is None else load_image(options.last_image, "last_image")
        images = [load_image(source, f"reference_images[{i}]") for i, source in enumerate(given)]
        request = Request.resolve(preset, _fit_to_source(preset, options, image))
        shape = request.shape
        size = shape.height, shape.width
        if last_image is not None and shape.frames < 5:
            raise InputError(f"a last_image for a clip of {shape.frames} frame", "at least 5 frames")
        references = tuple(task.reference(one, *size) for one in images)
        source = task.source and options.video is not None
        request = request.with_context(preset, _context_tokens(preset, shape, source, references))
        return cls(
            request,
            image=None if image is None else task.image(image, *size),
            last_image=None if last_image is None else task.image(last_image, *size),
            mask=None if options.mask is None else load_mask(options.mask, shape.frames, *size),
            video=None if options.video is None else load_video(options.video, shape.frames, *size, fit=task.video),
            references=references,
            views=_views(preset, image, last_image),
        )


def _views(preset: Preset, *images: Tensor | None) -> tuple[Tensor, ...]:
    """The given images as the vision encoder is shown them: stretched, bicubic without antialiasing.

    Source: Wan2.1 wan/modules/clip.py CLIPModel.visual. ComfyUI's own CLIP_VISION antialiases and rounds to 8 bits.
    """
    if preset.image_encoder is None:
        return ()
    side = preset.image_encoder.image_size
    return tuple(resize(image, side, side) for image in images if image is not None)


def _context_tokens(preset: Preset, shape: VideoShape, source: bool, references: Sequence[Tensor]) -> int:
    """Tokens that the transformer gets besides those of the clip: of a source video, and of references."""
    _, patch_height, patch_width = preset.dit.patch
    area = preset.vae.space_stride**2 * patch_height * patch_width
    tokens = sum(math.prod(reference.shape[1:]) // area for reference in references)
    return tokens + (shape.tokens(preset.vae, preset.dit) if source else 0)


def _references(options: Options) -> list[Any]:
    """The reference images; a single one may be given without a list."""
    given = options.reference_images
    references = list(given) if isinstance(given, (list, tuple)) else [given]
    return [reference for reference in references if reference is not None]


def _check_task(preset: Preset, options: Options, references: Sequence[Any]) -> None:
    """Refuse inputs that this model's task does not have, and ask for those it needs."""
    task, channels = TASKS[preset.task], preset.dit.in_channels
    given = [name for name in ("image", "last_image", "video", "mask") if getattr(options, name) is not None]
    given += ["reference_images"] if references else []
    for name in given:
        if name not in task.takes:
            homes = " or ".join(other.title for other in TASKS.values() if name in other.takes)
            raise InputError(
                f"{name} was given, but this is a {task.title} model ({channels} input channels)",
                f"a model for {homes}",
                f"Leave {name} out, or load that model" + _how_to_mark(preset, name),
            )
    for name in task.needs:
        if name not in given:
            article = "an" if task.title[0] in "aeio" else "a"
            raise InputError(
                f"no {name} for {article} {task.title} model ({channels} input channels)",
                f"{name}, {_MEANING[name]}",
                f"Pass {name}=, or load a text-to-video model",
            )
    if task.references is not None and len(references) > task.references:
        raise InputError(f"{len(references)} reference_images for a {task.title} model", f"{task.references} of them")


def _how_to_mark(preset: Preset, name: str) -> str:
    """For an input that would be right if the tensors, which several models have, were those of another one."""
    same = (other for other in presets_like(preset.dit, preset.two_experts, MARKS) if name in TASKS[other.task].takes)
    other = next(same, None)
    if other is None:
        return ""
    return f". If it is {other.name}, put the word {other.mark!r} into the name of its folder or file: no tensor tells"


def _fit_to_source(preset: Preset, options: Options, image: Tensor | None) -> Options:
    """The options with what is missing of frames and size taken from the given image or video."""
    frames = options.num_frames
    if options.video is not None:
        count, height, width = clip_info(options.video)
        frames = count if frames is None else frames
    elif image is not None:
        _, height, width = image.shape
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
    choose = cover_size if preset.vae.version == "2.2" else area_size
    return choose(source_height, source_width, preset.height * preset.width, multiple)
