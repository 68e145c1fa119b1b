"""Inputs that several nodes of a sampling run have, described once."""

import comfy.samplers
from comfy_api.latest import io

from ..wan_core.flow import SOLVERS

OFFICIAL = "official"


def solvers() -> list[str]:
    """The official solvers first, then every ComfyUI sampler; one of the same name is ComfyUI's own."""
    return [f"{OFFICIAL} {solver}" for solver in SOLVERS] + list(comfy.samplers.KSampler.SAMPLERS)


def schedules() -> list[str]:
    return [OFFICIAL, *comfy.samplers.KSampler.SCHEDULERS]


def pair_inputs():
    return [
        io.Model.Input(
            "high_noise",
            tooltip=(
                "The high-noise expert, from any loader: does the steps that start at or above the boundary. "
                "Or the only model."
            ),
        ),
        io.Model.Input(
            "low_noise",
            optional=True,
            tooltip=(
                "The low-noise expert: does the steps below the boundary. "
                "Leave it out for a single model; cfg_low and boundary then do nothing."
            ),
        ),
    ]


def prompt_inputs():
    return [
        io.Conditioning.Input("positive", tooltip="What the clip shows."),
        io.Conditioning.Input("negative", tooltip="What it should not show."),
    ]


def grid_input():
    """The solver whose official grid is meant, for nodes that run nothing."""
    return io.Combo.Input(
        "solver",
        options=list(SOLVERS),
        tooltip="The solver that will be used: unipc and euler start at 0.999 before the shift, dpmpp_2m at exactly 1.",
    )


def shift_input(lowest: float = 0.01, more: str = ""):
    return io.Float.Input(
        "shift",
        default=12.0,
        min=lowest,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip=(
            "Higher gives the high-noise expert more steps. Official: 12 text-to-video and VACE, "
            f"5 image-to-video, 5B and Fun-Control, 3 Bernini-R.{more}"
        ),
    )


def number_inputs(*names: str) -> list:
    """The inputs of a run that have these names."""
    inputs = {entry.id: entry for entry in (*_expert_inputs(), *_schedule_inputs())}
    return [inputs[name] for name in names]


def _expert_inputs() -> list:
    cfg = {"min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}
    return [
        io.Int.Input(
            "steps",
            default=40,
            min=1,
            max=1000,
            tooltip=(
                "Steps of the whole run, both experts together. "
                "Official: 40; 5B, VACE and Fun-Control 50; 20 for a draft."
            ),
        ),
        io.Float.Input(
            "cfg_high", default=4.0, **cfg, tooltip="Guidance of the high-noise expert; 1 skips the negative pass."
        ),
        io.Float.Input(
            "cfg_low", default=3.0, **cfg, tooltip="Guidance of the low-noise expert; 1 skips the negative pass."
        ),
        io.Float.Input(
            "boundary",
            default=0.875,
            min=0.0,
            max=1.0,
            step=0.001,
            round=0.0001,
            tooltip=(
                "Where the low-noise expert takes over, as a share of the 1000 timesteps. "
                "Official: 0.875 text-to-video, VACE and Bernini-R, 0.9 image-to-video and Fun-Control."
            ),
        ),
    ]


def _schedule_inputs() -> list:
    return [
        shift_input(),
        io.Combo.Input(
            "solver",
            options=solvers(),
            default=solvers()[0],
            tooltip="The official solvers first, then ComfyUI's samplers. The official code uses official unipc.",
        ),
        io.Combo.Input(
            "schedule",
            options=schedules(),
            default=OFFICIAL,
            tooltip="The official grid first, then ComfyUI's schedulers under the shift of this node.",
        ),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Below 1: start from the given latent with that much noise. The number of steps stays the same.",
        ),
    ]
