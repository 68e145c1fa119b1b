"""Turn a sentence into a clip with the tiny trained two-expert model that ships with the pack. It knows circles,
squares, triangles and crosses in six colours that move, or stay, on a plain background.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from . import OK
from .arguments import pipeline_options
from .generate import check_room, make_clip

NAME = "demo"
HELP = "make a clip with a tiny built-in model: no download, no GPU"


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--prompt", default="A red circle moves to the right", help="in English or Chinese (default: %(default)s)")
    add("--image", metavar="FILE", help="first frame: use the image-to-video pair")
    add("--out", default="demo.mp4", help="the mp4 to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")


def run(options: Namespace) -> int:
    import torch

    from ..checkpoints.model_files import open_model
    from ..config import PRESETS
    from ..demo.release import DEMO_NUMBERS, demo_model
    from ..demo.sheet import save_sheet
    from ..media.read import read_video
    from ..pipeline import WanPipeline
    from ..pipeline.inputs import Inputs

    generation = pipeline_options(Namespace(**vars(options), **DEMO_NUMBERS))
    task = "t2v-a14b" if options.image is None else "i2v-a14b"
    check_room(Inputs.resolve(PRESETS[task], generation).request, options.out)  # refused before anything is copied
    with tempfile.TemporaryDirectory() as folder:
        files = open_model(demo_model(task, folder))
        request = Inputs.resolve(files.preset, generation).request
        pipe = WanPipeline.from_files(files, torch_dtype=torch.float32)
        make_clip(pipe, request, generation, options.out)
    sheet = save_sheet(read_video(options.out), Path(options.out).with_suffix(".png"))
    print(sheet.resolve())
    return OK
