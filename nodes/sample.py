"""Sampling: one run across both experts."""

import comfy.samplers
from comfy_api.latest import io, ui

from ..wan_core.config import PRESETS
from ..wan_core.flow import SOLVERS
from .conditioning import size_inputs
from .load import CATEGORY

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
            tooltip="Steps of the whole run, both experts together. Official: 40, 5B and VACE 50; 20 for a draft.",
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
                "Official: 0.875 text-to-video, 0.9 image-to-video."
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


class Wan22MoEGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22MoEGuider",
            display_name="Wan 2.2 MoE Guider",
            category=CATEGORY,
            description="Both experts behind one guider, for SamplerCustomAdvanced.",
            search_aliases=["dual model guider", "moe", "cfg guider"],
            inputs=[*pair_inputs(), *prompt_inputs(), *number_inputs("cfg_high", "cfg_low", "boundary")],
            outputs=[io.Guider.Output(tooltip="For the guider input of SamplerCustomAdvanced.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, high_noise, positive, negative, cfg_high, cfg_low, boundary, low_noise=None) -> io.NodeOutput:
        from .host.sampling import make_guider

        node_id = cls.hidden.unique_id
        guider = make_guider(high_noise, low_noise, positive, negative, cfg_high, cfg_low, boundary, node_id)
        return io.NodeOutput(guider)


class Wan22FlowSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22FlowSchedule",
            display_name="Wan 2.2 Flow Schedule",
            category=CATEGORY,
            description="The official noise levels.",
            search_aliases=["sigmas", "scheduler", "flow shift"],
            inputs=[*number_inputs("steps", "shift"), grid_input(), *number_inputs("denoise")],
            outputs=[io.Sigmas.Output(tooltip="Falling noise levels, one more than steps; the last one is 0.")],
        )

    @classmethod
    def execute(cls, steps, shift, solver, denoise) -> io.NodeOutput:
        from .host.sampling import official_sigmas

        return io.NodeOutput(official_sigmas(steps, shift, solver, denoise))


class Wan22Solver(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22Solver",
            display_name="Wan 2.2 Solver",
            category=CATEGORY,
            description="The official solver step.",
            search_aliases=["sampler", "unipc", "dpm++ 2m"],
            inputs=[
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    tooltip=(
                        "unipc: the official default, order 2. dpmpp_2m: the official alternative. "
                        "euler: first order, for distilled LoRAs and comparisons."
                    ),
                )
            ],
            outputs=[io.Sampler.Output(tooltip="For the sampler input of SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, solver) -> io.NodeOutput:
        from .host.sampling import official_sampler

        return io.NodeOutput(official_sampler(solver))


class Wan22MoEKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22MoEKSampler",
            display_name="Wan 2.2 MoE KSampler",
            category=CATEGORY,
            description=(
                "One sampling run across both experts: the latent is handed over at the boundary, the solver goes on."
            ),
            search_aliases=["ksampler", "moe sampler", "two stage sampler", "high noise low noise"],
            inputs=[
                *pair_inputs(),
                *prompt_inputs(),
                io.Latent.Input(
                    "latent_image", tooltip="An empty latent, or one to start from (with denoise below 1)."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same noise as the native samplers draw for this seed.",
                ),
                *number_inputs("steps", "cfg_high", "cfg_low", "boundary"),
                shift_input(0.0, " 0: the shift of the MODEL, as ModelSamplingSD3 sets it."),
                *number_inputs("solver", "schedule", "denoise"),
                io.Int.Input(
                    "start_at_step",
                    default=0,
                    min=0,
                    max=10000,
                    optional=True,
                    advanced=True,
                    tooltip="First step to do.",
                ),
                io.Int.Input(
                    "end_at_step",
                    default=10000,
                    min=0,
                    max=10000,
                    optional=True,
                    advanced=True,
                    tooltip="Step to stop before; the rest of the noise is left in the latent.",
                ),
                io.Boolean.Input(
                    "add_noise",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Off: go on with a latent that another sampler has left in the middle of a run: "
                        "the same numbers, start_at_step where it stopped."
                    ),
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The finished latent, for a decoder.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        high_noise,
        positive,
        negative,
        latent_image,
        seed,
        steps,
        cfg_high,
        cfg_low,
        boundary,
        shift,
        solver,
        schedule,
        denoise,
        start_at_step=0,
        end_at_step=10000,
        add_noise=True,
        low_noise=None,
    ) -> io.NodeOutput:
        from .host.sampling import make_guider, make_sampler, make_sigmas, sample

        node_id = cls.hidden.unique_id
        guider = make_guider(high_noise, low_noise, positive, negative, cfg_high, cfg_low, boundary, node_id, shift)
        sigmas = make_sigmas(high_noise, steps, shift, solver, schedule, denoise)
        sigmas = sigmas[start_at_step : max(start_at_step, end_at_step) + 1]
        return io.NodeOutput(sample(guider, make_sampler(solver), sigmas, latent_image, seed, add_noise))


class Wan22Plan(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22Plan",
            display_name="Wan 2.2 Plan",
            category=CATEGORY,
            description="Which expert does which step, and how much memory the clip will need. Loads nothing.",
            search_aliases=["steps per expert", "memory estimate", "schedule table"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(PRESETS),
                    tooltip=(
                        "The model to plan for; it sets the sizes of the network, not the numbers below. "
                        "For a single model the boundary is ignored."
                    ),
                ),
                *number_inputs("steps", "boundary", "shift"),
                grid_input(),
                *size_inputs(),
            ],
            outputs=[io.String.Output("text", display_name="text", tooltip="The table, also shown in the node.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, steps, boundary, shift, solver, width, height, length) -> io.NodeOutput:
        from ..wan_core.pipeline import Options, Request
        from ..wan_core.pipeline.plan import idle_experts, plan_text

        preset = PRESETS[model]
        options = Options(
            num_inference_steps=steps,
            flow_shift=shift,
            solver=solver,
            width=width,
            height=height,
            num_frames=length,
            boundary_ratio=boundary if preset.two_experts else None,
        )
        request = Request.resolve(preset, options)
        warnings = [f"Warning: the {expert}-noise expert gets no step." for expert in idle_experts(request)]
        text = "\n".join([*warnings, plan_text(preset, request)])
        return io.NodeOutput(text, ui=ui.PreviewText(text))


NODES = [Wan22MoEGuider, Wan22FlowSchedule, Wan22Solver, Wan22MoEKSampler, Wan22Plan]
