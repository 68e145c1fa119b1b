"""Command line: python -m wan_core generate | inspect | plan | demo | train."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .config import PRESETS
from .errors import CheckpointError, InputError, WanError
from .training.arguments import add_parsers

OK, FAILED, BAD_INPUT, BAD_MODEL, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = """\
exit codes: 0 done, 1 failed while running, 2 bad arguments or input, 3 model files missing or wrong, 130 interrupted

examples:
  python -m wan_core demo --out demo.mp4
  python -m wan_core plan --preset t2v-a14b --steps 40 --width 832 --height 480
  python -m wan_core generate ./Wan2.2-T2V-A14B "A cat walks through the snow" --out cat.mp4 --offload --dtype bfloat16
  python -m wan_core generate ./Wan2.2-I2V-A14B "海浪拍打礁石" --image rocks.png --out waves.mp4 --offload --dtype bfloat16
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot print Chinese must not end the run
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except CheckpointError as error:
        return _complain(error, BAD_MODEL)
    except InputError as error:
        return _complain(error, BAD_INPUT)
    except WanError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _complain(error: WanError, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wan_core",
        description="Generate video with Wan2.2 models. Start with `demo`: it needs no download and no GPU.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    generate = commands.add_parser(
        "generate",
        help="turn a prompt (and images, frames, masks) into an mp4",
        description="Turn a prompt, and images, frames and masks where given, into an mp4.",
    )
    generate.add_argument("model", help="model folder: official, diffusers, or ComfyUI single files")
    generate.add_argument("prompt", help="what the clip shows, in English, Chinese, or another language of umT5")
    generate.add_argument("--out", default="video.mp4", help="the mp4 to write (default: %(default)s)")
    generate.add_argument("--negative", metavar="TEXT", help="what it should not show (default: the official text)")
    generate.add_argument("--image", metavar="FILE", help="first frame, for image-to-video models and the 5B")
    generate.add_argument("--last-image", metavar="FILE", help="last frame, for image-to-video models")
    generate.add_argument("--video", metavar="FILE", help="control video, for VACE models")
    generate.add_argument("--mask", metavar="FILE", help="white where VACE generates, black where it keeps the video")
    generate.add_argument(
        "--reference", metavar="FILE", action="append", default=[], help="reference image for VACE; may be repeated"
    )
    generate.add_argument("--seed", type=int, help="same seed, same clip (default: drawn, and stored in the file)")
    generate.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a LoRA, such as style.safetensors:0.7; for the expert that its name says, else for both; may be repeated",
    )
    generate.add_argument("--offload", action="store_true", help="keep one part of the model on the device at a time")
    generate.add_argument("--device", help="cuda, cuda:1, cpu, … (default: cuda where there is one)")
    generate.add_argument("--attention", default="sdpa", help="sdpa, flash, sage or auto (default: %(default)s)")
    generate.add_argument(
        "--step-cache",
        type=float,
        metavar="CHANGE",
        help="0 to 1: leave out model calls expected to change the velocity by less than this; faster, not the same clip (default: 0)",
    )
    _add_dtype(generate, "what to compute in (default: as the weights are stored)")
    _add_numbers(generate)
    generate.set_defaults(run=_generate)

    inspect = commands.add_parser(
        "inspect",
        help="say what a model file or folder is, without loading it",
        description="Say what a weight file or a model folder is: kind, family, layout, dtype, size. Reads headers only.",
    )
    inspect.add_argument("path", help="a weight file, a folder of shards, or a model folder")
    inspect.set_defaults(run=_inspect)

    plan = commands.add_parser(
        "plan",
        help="show steps, experts, sizes and memory of a generation, without loading weights",
        description="Show which expert does each step, the legal size, and the memory a generation will need.",
    )
    plan.add_argument("model", nargs="?", help="model folder (its headers are read); or use --preset")
    plan.add_argument("--preset", choices=sorted(PRESETS), help="a model of the family (default: t2v-a14b)")
    _add_dtype(plan, "what to estimate memory for (default: bfloat16)")
    _add_numbers(plan)
    plan.set_defaults(run=_plan)

    demo = commands.add_parser(
        "demo",
        help="make a clip with a tiny built-in model: no download, no GPU",
        description="Turn a sentence into a clip with the tiny trained two-expert model that ships with the pack. It knows "
        "circles, squares, triangles and crosses in six colours that move, or stay, on a plain background.",
    )
    demo.add_argument(
        "--prompt", default="A red circle moves to the right", help="in English or Chinese (default: %(default)s)"
    )
    demo.add_argument("--image", metavar="FILE", help="first frame: use the image-to-video pair")
    demo.add_argument("--out", default="demo.mp4", help="the mp4 to write (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    demo.set_defaults(run=_demo)

    train = commands.add_parser(
        "train",
        help="train a VAE, an expert or a LoRA on a folder of clips",
        description="Train on a folder of clips. A run can be stopped and continued with the same command. See docs/training.md.",
    )
    add_parsers(train)
    return parser


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("numbers", "Left out: the official default of the model.")
    group.add_argument("--width", type=int, help="pixels, a multiple of 16 (5B: 32)")
    group.add_argument("--height", type=int, help="pixels, a multiple of 16 (5B: 32)")
    group.add_argument("--frames", type=int, help="a multiple of 4, plus 1")
    group.add_argument("--steps", type=int, help="solver steps")
    group.add_argument("--guidance", type=float, help="guidance scale of the high-noise expert, or of both")
    group.add_argument("--guidance-low", type=float, help="guidance scale of the low-noise expert")
    group.add_argument("--boundary", type=float, help="0 to 1: where the low-noise expert takes over")
    group.add_argument("--shift", type=float, help="flow shift: more steps at high noise")
    group.add_argument("--solver", default="unipc", help="unipc, dpmpp_2m or euler (default: %(default)s)")


def _add_dtype(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help=default)


def _numbers(options: argparse.Namespace) -> dict:
    return {
        "width": options.width,
        "height": options.height,
        "num_frames": options.frames,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "guidance_scale_2": options.guidance_low,
        "boundary_ratio": options.boundary,
        "flow_shift": options.shift,
        "solver": options.solver,
    }


def _dtype(options: argparse.Namespace):
    import torch

    return getattr(torch, options.dtype) if options.dtype else None


def _generate(options: argparse.Namespace) -> int:
    from .attention import get_backend
    from .checkpoints.summary import resolve_preset
    from .devices import usable_device
    from .pipeline import WanPipeline
    from .pipeline.inputs import Inputs

    arguments = {
        "prompt": options.prompt,
        "negative_prompt": options.negative,
        "image": options.image,
        "last_image": options.last_image,
        "video": options.video,
        "mask": options.mask,
        "reference_images": options.reference,
        "seed": options.seed,
        "step_cache": options.step_cache,
        **_numbers(options),
    }
    if options.device:
        usable_device(options.device)
    get_backend(options.attention)
    request = Inputs.resolve(resolve_preset(options.model), **arguments).request  # refused before any weight is read
    _check_output(request, options.out)
    pipe = WanPipeline.from_pretrained(
        options.model, torch_dtype=_dtype(options), device=options.device, attention=options.attention
    )
    if options.offload:
        pipe.enable_model_cpu_offload()
    for lora in options.lora:
        for report in pipe.load_lora(**_lora(lora)):
            print(report, file=sys.stderr)
    return _run(pipe, request, options.out, arguments)


def _lora(text: str) -> dict:
    """The path and the strength in FILE[:STRENGTH]; a colon may also belong to the path."""
    path, _, strength = text.rpartition(":")
    try:
        return {"path": path, "strength": float(strength)} if path else {"path": text}
    except ValueError:
        return {"path": text}


def _check_output(request, out: str) -> None:
    from .video import check_output

    check_output(out, raw_bytes=3 * request.shape.frames * request.shape.height * request.shape.width)


def _run(pipe, request, out: str, arguments: dict) -> int:
    """Generate with a progress bar that names the expert at work, then write the file."""
    from tqdm import tqdm

    from .pipeline.plan import step_counts

    names = [_AT_WORK[who] if pipe.low else "the model" for who in request.plan()]
    print(f"{request.model}: {step_counts(request)}", file=sys.stderr)
    with tqdm(total=len(names), unit="step", file=sys.stderr, desc=names[0]) as bar:

        def advance(i, t, x, x0):
            bar.update()
            bar.set_description(names[min(i + 1, len(names) - 1)])

        output = pipe(callback=advance, **arguments)
    output.save(out)
    print(f"{Path(out).resolve()} (seed {output.request.seeds[0]})")
    return OK


_AT_WORK = {"high": "high-noise expert: layout and motion", "low": "low-noise expert: texture and detail"}


def _inspect(options: argparse.Namespace) -> int:
    from .checkpoints import inspect

    print(inspect(options.path))
    return OK


def _plan(options: argparse.Namespace) -> int:
    import torch

    from .checkpoints.summary import resolve_preset
    from .pipeline.plan import idle_experts, plan_text
    from .pipeline.request import Request

    if options.model is not None and options.preset:
        raise InputError("both a model folder and --preset", "one of them")
    preset = resolve_preset(options.model) if options.model is not None else PRESETS[options.preset or "t2v-a14b"]
    request = Request.resolve(preset, **_numbers(options))
    print(plan_text(preset, request, _dtype(options) or torch.bfloat16))
    for who in idle_experts(request):
        print(f"warning: the {who}-noise expert gets no step", file=sys.stderr)
    return OK


def _demo(options: argparse.Namespace) -> int:
    import torch

    from .demo.release import DEMO_NUMBERS, demo_model
    from .demo.sheet import save_sheet
    from .pipeline import WanPipeline
    from .pipeline.request import Request
    from .video import read_video

    task = "i2v-a14b" if options.image else "t2v-a14b"
    arguments = {"prompt": options.prompt, "seed": options.seed, "image": options.image, **DEMO_NUMBERS}
    request = Request.resolve(PRESETS[task], options.prompt, seed=options.seed, **DEMO_NUMBERS)
    _check_output(request, options.out)
    with tempfile.TemporaryDirectory() as folder:
        pipe = WanPipeline.from_pretrained(demo_model(task, folder), torch_dtype=torch.float32)
        code = _run(pipe, request, options.out, arguments)
    sheet = save_sheet(read_video(options.out), Path(options.out).with_suffix(".png"))
    print(sheet.resolve())
    return code
