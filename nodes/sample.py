"""Sampling: one run across both experts."""

from comfy_api.latest import io, ui

from ..wan_core.config import PRESETS
from ..wan_core.flow import SOLVERS
from .conditioning import size_inputs
from .load import CATEGORY
from .run_inputs import grid_input, number_inputs, pair_inputs, prompt_inputs, shift_input


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
