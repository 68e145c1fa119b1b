"""Arguments that several commands have. What a call of the pipeline takes is stored under its name there."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import fields
from typing import TYPE_CHECKING

from ..config import SOLVERS

if TYPE_CHECKING:
    import torch

    from ..pipeline.options import Options

NUMBERS = (
    ("--width", "width", int, "pixels, a multiple of 16 (5B: 32)"),
    ("--height", "height", int, "pixels, a multiple of 16 (5B: 32)"),
    ("--frames", "num_frames", int, "a multiple of 4, plus 1"),
    ("--steps", "num_inference_steps", int, "solver steps"),
    ("--guidance", "guidance_scale", float, "guidance scale of the high-noise expert, or of both"),
    ("--guidance-low", "guidance_scale_2", float, "guidance scale of the low-noise expert"),
    ("--boundary", "boundary_ratio", float, "0 to 1: where the low-noise expert takes over"),
    ("--shift", "flow_shift", float, "flow shift: more steps at high noise"),
)


FILES = (
    ("--image", "image", "first frame: image-to-video, TI2V-5B, Fun-Control, Fun-InP"),
    ("--last-image", "last_image", "last frame: image-to-video A14B, first-and-last-frame, Fun-InP"),
    ("--video", "video", "what controls the clip (VACE, Fun-Control), or is edited (Bernini-R)"),
    ("--mask", "mask", "white where VACE generates, black where it keeps the video"),
)


def add_inputs(parser: ArgumentParser) -> None:
    """Images, frames and masks."""
    group = parser.add_argument_group("images and frames", "Which of them a model takes, it says where one is wrong.")
    for flag, name, text in FILES:
        group.add_argument(flag, dest=name, metavar="FILE", help=text)
    group.add_argument(
        "--reference",
        dest="reference_images",
        metavar="FILE",
        action="append",
        default=[],
        help="reference image: VACE and Bernini-R, where it may be repeated, and Fun-Control",
    )


def any_input(options: Namespace) -> bool:
    """Whether an image, a video or a mask was given."""
    return any(getattr(options, name) for name in (*(name for _, name, _ in FILES), "reference_images"))


def add_numbers(parser: ArgumentParser) -> None:
    """Size, length, steps, guidance and schedule."""
    group = parser.add_argument_group("numbers", "Left out: the official default of the model.")
    for flag, name, kind, text in NUMBERS:
        group.add_argument(flag, dest=name, type=kind, metavar="N" if kind is int else "X", help=text)
    group.add_argument("--solver", default=SOLVERS[0], help=f"{', '.join(SOLVERS)} (default: %(default)s)")


def add_dtype(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help=text)


def dtype_of(options: Namespace) -> torch.dtype | None:
    """The chosen dtype; None where none was given."""
    import torch

    return getattr(torch, options.dtype) if options.dtype else None


def pipeline_options(options: Namespace) -> Options:
    """What was given of a pipeline call's options; the defaults for the others."""
    from ..pipeline.options import Options

    given = vars(options)
    return Options(**{field.name: given[field.name] for field in fields(Options) if field.name in given})
