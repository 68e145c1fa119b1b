"""One sampling run across two MODELs: the handoff happens where the velocity is asked for."""

import contextlib
from dataclasses import dataclass

import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...wan_core.config import TRAIN_TIMESTEPS
from .second_expert import RunInputs, SecondExpert, tell_step, time_step_cache
from .shift import at_shift

SAMPLER_HOOKS = "sampler_post_cfg_function"  # key of model_options; samplers such as CFG++ add theirs for a run


class Progress:
    """What a guider reports during a run. This one ignores it; `preview.RunProgress` shows it in the browser."""

    def on_start(self, sigmas: list[float], plan: list[str], latent_format) -> None:
        """A run over `sigmas` (N + 1) begins, with the expert of each of its N steps."""

    def on_load(self, expert: str) -> None:
        """An expert, "high" or "low", is about to be brought to its device."""

    def on_expert(self, expert: str) -> None:
        """An expert, "high" or "low", is about to be evaluated."""

    def on_step(self, step: int, x0: torch.Tensor) -> None:
        """Step `step` (from 0) has ended with the estimate `x0`, latents as the model sees them."""

    def on_end(self) -> None:
        """The run has ended, also where it failed."""


@dataclass
class Run:
    """State of one sampling run."""

    inputs: RunInputs
    sigmas: list[float]  # N + 1
    churns: bool  # the sampler raises sigma before a step
    done: int = 0  # steps
    handed_over: bool = False  # to the low-noise expert
    second: SecondExpert | None = None  # loaded when it is first needed

    def step_at(self, sigma: float) -> int:
        """The step that an evaluation at `sigma` belongs to; with samplers that raise sigma, the one under way."""
        started = self.done + 1 if self.churns else sum(level >= sigma for level in self.sigmas)
        return min(max(started, 1), len(self.sigmas) - 1) - 1


class HandoffGuider(comfy.samplers.CFGGuider):
    """Asks the high-noise MODEL until a step starts below the boundary, and the low-noise MODEL from then on.

    The sampler sees one model throughout, so its history survives. Each MODEL keeps its own options, hooks and
    conditioning; the second one is loaded when it is first needed.

    Args:
        high, low: MODELs; low may be None, then high does every step.
        boundary: in [0, 1]; a step belongs to high iff its timestep, truncated, is at least 1000·boundary.
        shift: what is given in percent of a run follows it; None: that of each MODEL.
    """

    def __init__(
        self,
        high,
        low,
        boundary: float,
        cfg_high: float,
        cfg_low: float,
        progress: Progress | None = None,
        shift: float | None = None,
    ):
        super().__init__(high)
        self.set_cfg(cfg_high)
        self.shift = shift
        self.low, self.boundary, self.cfg_low = low, boundary, cfg_low
        self.progress = progress or Progress()
        self._run: Run | None = None

    def inner_set_conds(self, conds):
        super().inner_set_conds(conds)
        has_hooks = any(map(comfy.sampler_helpers.cond_has_hooks, conds.values()))
        if self.low is not None and self.low.is_dynamic() and has_hooks:
            self.low = self.low.get_non_dynamic_delegate()  # as the base class does with the first MODEL

    def sample(self, *args, **kwargs):
        models = [] if self.shift is None else [self.model_patcher, self.low]
        with contextlib.ExitStack() as run:
            for model in filter(None, models):
                run.enter_context(at_shift(model, self.shift))
            return super().sample(*args, **kwargs)

    def outer_sample(
        self,
        noise,
        latent_image,
        sampler,
        sigmas,
        denoise_mask=None,
        callback=None,
        disable_pbar=False,
        seed=None,
        latent_shapes=None,
    ):
        conds = {name: [cond.copy() for cond in conds] for name, conds in self.conds.items()}
        known = comfy.patcher_extension.merge_nested_dicts(
            self.model_patcher.model_options.get("transformer_options", {}), self.model_options["to_load_options"]
        )
        inputs = RunInputs(noise, latent_image, denoise_mask, seed, latent_shapes, conds, known)
        churns = getattr(sampler, "extra_options", {}).get("s_churn", 0) > 0
        run = self._run = Run(inputs, sigmas.tolist(), churns)

        def on_step(step, x0, *rest):
            run.done = step + 1
            self.progress.on_step(step, x0)
            if callback is not None:
                callback(step, x0, *rest)

        time_step_cache(self.model_options, self.model_patcher)
        self.progress.on_start(run.sigmas, self.plan(sigmas), self.model_patcher.get_model_object("latent_format"))
        self.progress.on_load("high")
        try:
            return super().outer_sample(
                noise, latent_image, sampler, sigmas, denoise_mask, on_step, disable_pbar, seed, latent_shapes
            )
        finally:
            if run.second is not None:
                run.second.close()
            self._run = None
            self.progress.on_end()

    def plan(self, sigmas: torch.Tensor) -> list[str]:
        """The expert, "high" or "low", of each step of sigmas (N + 1)."""
        return ["low" if self._starts_low(sigma) else "high" for sigma in sigmas.tolist()[:-1]]

    def outer_predict_noise(self, x, timestep, model_options=None, seed=None):
        """Wrappers of a MODEL (step caches among them) see the steps of that MODEL and no others."""
        model_options, run, sigma = model_options or {}, self._run, float(timestep.max())
        step = run.step_at(sigma)
        # once low, always low; samplers that look ahead may hand over half a step early
        run.handed_over = run.handed_over or self._starts_low(run.sigmas[step] if run.churns else sigma)
        expert = "low" if run.handed_over else "high"
        if expert == "high":
            self.progress.on_expert(expert)
            tell_step(model_options, step)
            return super().outer_predict_noise(x, timestep, model_options, seed)
        if run.second is None:
            self.progress.on_load(expert)
            run.second = SecondExpert(self.low, self.cfg_low, run.inputs, model_options["transformer_options"])
        self.progress.on_expert(expert)
        tell_step(run.second.model_options, step)
        own = len(self.model_options.get(SAMPLER_HOOKS, []))
        return run.second.outer_predict_noise(x, timestep, seed, model_options.get(SAMPLER_HOOKS, [])[own:])

    def _starts_low(self, sigma: float) -> bool:
        timestep = int(sigma * TRAIN_TIMESTEPS + 1e-4)  # float32 may hold a whole timestep a little too low
        return self.low is not None and timestep < self.boundary * TRAIN_TIMESTEPS
