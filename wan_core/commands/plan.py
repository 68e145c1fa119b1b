"""Show which expert does each step, the legal size, and the memory a generation will need."""

import sys
from argparse import ArgumentParser, Namespace

from ..config import PRESETS
from ..errors import InputError
from . import OK
from .arguments import add_dtype, add_inputs, add_numbers, any_input, dtype_of, pipeline_options

NAME = "plan"
HELP = "show steps, experts, sizes and memory of a generation, without loading weights"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="model folder (its headers are read); or use --preset")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="a model of the family (default: t2v-a14b)")
    add_dtype(parser, "what to estimate memory for (default: bfloat16)")
    add_inputs(parser)
    add_numbers(parser)


def run(options: Namespace) -> int:
    import torch

    from ..checkpoints.model_files import open_model
    from ..pipeline import Request
    from ..pipeline.inputs import Inputs
    from ..pipeline.plan import idle_experts, plan_text

    if options.model is not None and options.preset:
        raise InputError("both a model folder and --preset", "one of them")
    preset = PRESETS[options.preset or "t2v-a14b"] if options.model is None else open_model(options.model).preset
    generation = pipeline_options(options)
    # What a clip is made from counts in its tokens and its memory; without any of it, nothing is asked for.
    request = Inputs.resolve(preset, generation).request if any_input(options) else Request.resolve(preset, generation)
    print(plan_text(preset, request, dtype_of(options) or torch.bfloat16))
    for expert in idle_experts(request):
        print(f"warning: the {expert}-noise expert gets no step", file=sys.stderr)
    return OK
