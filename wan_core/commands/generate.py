"""Turn a prompt, and images, frames and masks where given, into an mp4."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import OK
from .arguments import add_dtype, add_inputs, add_numbers, dtype_of, pipeline_options

if TYPE_CHECKING:
    from ..pipeline import Request, WanPipeline
    from ..pipeline.options import Options

NAME = "generate"
HELP = "turn a prompt (and images, frames, masks) into an mp4"

_AT_WORK = {"high": "high-noise expert: layout and motion", "low": "low-noise expert: texture and detail"}


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="model folder: official, diffusers, or ComfyUI single files")
    add("prompt", help="what the clip shows, in English, Chinese, or another language of umT5")
    add("--out", default="video.mp4", help="the mp4 to write (default: %(default)s)")
    add(
        "--negative",
        dest="negative_prompt",
        metavar="TEXT",
        help="what it should not show (default: the official text)",
    )
    add("--seed", type=int, help="same seed, same clip (default: drawn, and stored in the file)")
    add(
        "--lora",
        type=file_and_strength,
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a LoRA, such as style.safetensors:0.7; for the expert that its name says, else for both; may be repeated",
    )
    add("--offload", action="store_true", help="keep one part of the model on the device at a time")
    add("--device", help="cuda, cuda:1, cpu, … (default: cuda where there is one)")
    add("--attention", default="sdpa", help="sdpa, flash, sage or auto (default: %(default)s)")
    add(
        "--step-cache",
        type=float,
        metavar="CHANGE",
        help="0 to 1: leave out model calls expected to change the velocity by less than this; faster, not the same "
        "clip (default: 0)",
    )
    add_dtype(parser, "what to compute in (default: as the weights are stored)")
    add_inputs(parser)
    add_numbers(parser)


def run(options: Namespace) -> int:
    from ..attention import get_backend
    from ..checkpoints.model_files import open_model
    from ..devices import usable_device
    from ..pipeline import WanPipeline
    from ..pipeline.inputs import Inputs

    usable_device(options.device)
    get_backend(options.attention)  # both are refused before a file is looked for
    files, generation = open_model(options.model), pipeline_options(options)
    request = Inputs.resolve(files.preset, generation).request  # refused before any weight is read
    check_room(request, options.out)
    pipe = WanPipeline.from_files(
        files, torch_dtype=dtype_of(options), device=options.device, attention=options.attention
    )
    if options.offload:
        pipe.enable_model_cpu_offload()
    for path, strength in options.lora:
        for report in pipe.load_lora(path, strength=strength):
            print(report, file=sys.stderr)
    make_clip(pipe, request, generation, options.out)
    return OK


def file_and_strength(text: str) -> tuple[str, float]:
    """The two parts of FILE[:STRENGTH]; a colon may also belong to the path."""
    path, _, strength = text.rpartition(":")
    try:
        return (path, float(strength)) if path else (text, 1.0)
    except ValueError:
        return text, 1.0


def check_room(request: Request, out: str) -> None:
    """Raises InputError or VideoError unless the request's clip can be written to `out`."""
    from ..media.mp4 import check_output

    check_output(out, raw_bytes=3 * request.shape.frames * request.shape.height * request.shape.width)


def make_clip(pipe: WanPipeline, request: Request, generation: Options, out: str) -> None:
    """Generate with a progress bar that names the expert at work, then write the file and print its name."""
    from tqdm import tqdm

    from ..pipeline.plan import step_counts

    names = [_AT_WORK[expert] if pipe.low else "the model" for expert in request.plan()]
    print(f"{request.model}: {step_counts(request)}", file=sys.stderr)
    with tqdm(total=len(names), unit="step", file=sys.stderr, desc=names[0]) as bar:

        def advance(i, t, x, x0) -> None:
            bar.update()
            bar.set_description(names[min(i + 1, len(names) - 1)])

        output = pipe.generate(replace(generation, callback=advance))
    output.save(out)
    print(f"{Path(out).resolve()} (seed {output.request.seeds[0]})")
