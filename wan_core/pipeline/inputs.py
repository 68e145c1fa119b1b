"""What a caller passes in, checked against a model's task and brought to the clip's size; no weights are needed."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    def resolve(
        cls,
        preset: Preset,
        prompt: str | Sequence[str] | Options,
        *,
        image=None,
        last_image=None,
        video=None,
        mask=None,
        reference_images: Sequence = (),
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        **numbers,
    ) -> "Inputs":
        """Check everything that was passed and load it.

        Args: as in `WanPipeline.__call__`.
        Raises:
            InputError: naming the argument, its value, and what would be right.
        """
        if isinstance(prompt, Options):
            return cls.resolve(preset, **vars(prompt))
        references = list(reference_images) if isinstance(reference_images, (list, tuple)) else [reference_images]
        references = [r for r in references if r is not None]
        _check_task(preset, image, last_image, video, mask, references)
        image = None if image is None else load_image(image)
        last_image = None if last_image is None else load_image(last_image, "last_image")
        references = [load_image(r, f"reference_images[{i}]") for i, r in enumerate(references)]
        if video is not None:
            count, *video_size = clip_info(video)
            num_frames = count if num_frames is None else num_frames
        if image is not None or video is not None:
            height, width = _complete_size(preset, height, width, *(video_size if image is None else image.shape[1:]))
        request = Request.resolve(preset, prompt, height=height, width=width, num_frames=num_frames, **numbers)
        shape = request.shape
        size = shape.height, shape.width
        if last_image is not None and shape.frames < 5:
            raise InputError(f"a last_image for a clip of {shape.frames} frame", "at least 5 frames")
        fit = cover if preset.task == "ti2v" else resize
        mask = None if mask is None else load_mask(mask, shape.frames, *size)
        return cls(
            request,
            None if image is None else fit(image, *size),
            None if last_image is None else fit(last_image, *size),
            None if video is None else load_video(video, shape.frames, *size),
            mask,
            tuple(fit_on_white(reference, *size) for reference in references),
        )


def _check_task(preset: Preset, image, last_image, video, mask, references) -> None:
    """Refuse inputs that this model's task does not have, and ask for those it needs."""
    task, channels = preset.task, preset.dit.in_channels
    given = {
        "image": image is not None,
        "last_image": last_image is not None,
        "video": video is not None,
        "mask": mask is not None,
        "reference_images": len(references) > 0,
    }
    for name, present in given.items():
        if present and name not in TAKES[task]:
            homes = " or ".join(TASKS[other] for other, names in TAKES.items() if name in names)
            raise InputError(
                f"{name} was given, but this is a {TASKS[task]} model ({channels} input channels)",
                f"a model for {homes}",
                f"Leave {name} out, or load that model",
            )
    if task == "i2v" and image is None:
        raise InputError(
            f"no image for an {TASKS[task]} model ({channels} input channels)",
            "image, the first frame",
            "Pass image=, or load a text-to-video model",
        )


def _complete_size(
    preset: Preset, height: int | None, width: int | None, source_height: int, source_width: int
) -> tuple[int, int]:
    """(height, width), what is missing of it taken from the proportions of the given image or video."""
    multiple = size_multiple(preset.vae, preset.dit)
    if height is None and width is None:
        choose = cover_size if preset.task == "ti2v" else area_size
        return choose(source_height, source_width, preset.height * preset.width, multiple)
    if height is None:
        width = whole_number("width", width, 1, ROPE_POSITIONS * multiple)
        height = max(1, round(width * source_height / source_width / multiple)) * multiple
    elif width is None:
        height = whole_number("height", height, 1, ROPE_POSITIONS * multiple)
        width = max(1, round(height * source_width / source_height / multiple)) * multiple
    return height, width
