"""One sampling run across two MODELs: the handoff happens where the velocity is asked for."""

from dataclasses import dataclass

import comfy.hooks
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...wan_core.config import TRAIN_TIMESTEPS

SAMPLER_HOOKS = "sampler_post_cfg_function"  # key of model_options; samplers such as CFG++ add theirs for a run


class Progress:
    """What a guider reports during a run. This one ignores it; `preview.RunProgress` shows it in the browser."""

    def on_start(self, sigmas: list[float], plan: list[str], latent_format) -> None:
        """A run over `sigmas` (N + 1) begins, with the expert of each of its N steps."""

    def on_expert(self, expert: str) -> None:
        """An expert, "high" or "low", is about to be evaluated."""

    def on_step(self, step: int, x0: torch.Tensor) -> None:
        """Step `step` (from 0) has ended with the estimate `x0`, latents as the model sees them."""

    def on_end(self) -> None:
        """The run has ended, also where it failed."""


@dataclass
class Run:
    """State of one sampling run, shared by the guider and the second expert.

    The first group is what ComfyUI calls `outer_sample` with, before anything is moved to the device.
    """

    noise: torch.Tensor  # (B, C, T, h, w), as latent
    latent: torch.Tensor
    mask: torch.Tensor | None
    sigmas: torch.Tensor  # (N + 1,)
    seed: int | None
    shapes: list | None
    conds: dict[str, list[dict]]  # the conditioning before it is prepared for the first expert

    churns: bool  # the sampler raises sigma before a step
    step: int = 0  # the step that is under way
    handed_over: bool = False  # to the low-noise expert
    second: "SecondExpert | None" = None  # loaded when it is first needed


class HandoffGuider(comfy.samplers.CFGGuider):
    """Asks the high-noise MODEL until a step starts below the boundary, and the low-noise MODEL from then on.

    The sampler sees one model throughout, so its history survives. Each MODEL keeps its own options, hooks and
    conditioning; the second one is loaded when it is first needed.

    Args:
        high, low: MODELs; low may be None, then high does every step.
        boundary: in [0, 1]; a step belongs to high iff its timestep, truncated, is at least 1000·boundary.
    """

    def __init__(self, high, low, boundary: float, cfg_high: float, cfg_low: float, progress: Progress | None = None):
        super().__init__(high)
        self.set_cfg(cfg_high)
        self.low, self.boundary, self.cfg_low = low, boundary, cfg_low
        self.progress = progress or Progress()
        self._run: Run | None = None

    def inner_set_conds(self, conds):
        super().inner_set_conds(conds)
        has_hooks = any(map(comfy.sampler_helpers.cond_has_hooks, conds.values()))
        if self.low is not None and self.low.is_dynamic() and has_hooks:
            self.low = self.low.get_non_dynamic_delegate()  # as the base class does with the first MODEL

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
        churns = getattr(sampler, "extra_options", {}).get("s_churn", 0) > 0
        run = Run(noise, latent_image, denoise_mask, sigmas, seed, latent_shapes, conds, churns)
        self._run = run

        def on_step(step, x0, *rest):
            run.step = step + 1
            self.progress.on_step(step, x0)
            if callback is not None:
                callback(step, x0, *rest)

        self.progress.on_start(sigmas.tolist(), self.plan(sigmas), self.model_patcher.get_model_object("latent_format"))
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
        model_options, run = model_options or {}, self._run
        expert = self._expert_at(float(timestep.max()))
        self.progress.on_expert(expert)
        if expert == "high":
            return super().outer_predict_noise(x, timestep, model_options, seed)
        if run.second is None:
            run.second = SecondExpert(self.low, self.cfg_low, run)
        own = len(self.model_options.get(SAMPLER_HOOKS, []))
        return run.second.outer_predict_noise(x, timestep, seed, model_options.get(SAMPLER_HOOKS, [])[own:])

    def _expert_at(self, sigma: float) -> str:
        """The expert, "high" or "low", of an evaluation at `sigma`; once low, always low.

        Samplers that look ahead may hand over half a step early. Those that raise sigma before a step are judged by
        the sigma that the step starts at.
        """
        run = self._run
        if run.churns:
            sigma = float(run.sigmas[min(run.step, len(run.sigmas) - 1)])
        run.handed_over = run.handed_over or self._starts_low(sigma)
        return "low" if run.handed_over else "high"

    def _starts_low(self, sigma: float) -> bool:
        timestep = int(sigma * TRAIN_TIMESTEPS + 1e-4)  # float32 may hold a whole timestep a little too low
        return self.low is not None and timestep < self.boundary * TRAIN_TIMESTEPS


class SecondExpert:
    """The low-noise MODEL, prepared in the middle of a run as ComfyUI prepares a MODEL at its start.

    Its wrappers find here what they look for on a guider: cfg, conds, inner_model, model_patcher, model_options.
    """

    def __init__(self, patcher, cfg: float, run: Run):
        self.model_patcher, self.cfg, self.hook_mode = patcher, cfg, patcher.hook_mode
        self.model_options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
        self.conds = {name: [cond.copy() for cond in conds] for name, conds in run.conds.items()}
        self.inner_model, self.loaded = None, []
        try:
            self._load(run)
            self._prepare_conds(run)
            self._prepare_options(run)
        except BaseException:
            self.close()
            raise

    def _load(self, run: Run) -> None:
        """The first half of `CFGGuider.sample` and `outer_sample`."""
        patcher, options = self.model_patcher, self.model_options
        options.setdefault("transformer_options", {})
        if comfy.samplers.get_total_hook_groups_in_conds(self.conds) <= 1:
            patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
        comfy.sampler_helpers.prepare_model_patcher(patcher, self.conds, options)
        comfy.samplers.filter_registered_hooks_on_conds(self.conds, options)
        self.inner_model, self.conds, self.loaded = comfy.sampler_helpers.prepare_sampling(
            patcher, run.noise.shape, self.conds, options
        )
        comfy.samplers.cast_to_load_options(options, device=patcher.load_device, dtype=patcher.model_dtype())
        patcher.pre_run()

    def _prepare_conds(self, run: Run) -> None:
        """The first half of `CFGGuider.inner_sample`."""
        device = self.model_patcher.load_device
        noise, latent = (x.to(device=device, dtype=torch.float32) for x in (run.noise, run.latent))
        if torch.count_nonzero(latent) > 0:
            latent = self.inner_model.process_latent_in(latent)
        self.inner_model.latent_shapes = run.shapes
        keyframes = keyframe_states(self.conds)
        self.conds = comfy.samplers.process_conds(
            self.inner_model, noise, self.conds, device, latent, run.mask, run.seed, latent_shapes=run.shapes
        )
        for group, state in keyframes:  # the schedule of a hook goes on where the first expert left it
            vars(group).update(state)

    def _prepare_options(self, run: Run) -> None:
        options = self.model_options["transformer_options"]
        options["sample_sigmas"] = run.sigmas
        if "easycache" in options:
            options["easycache"] = options["easycache"].clone().prepare_timesteps(self.inner_model.model_sampling)

    def outer_predict_noise(self, x, timestep, seed, sampler_hooks):
        """As a guider's, with the hooks that the sampler itself has added (CFG++ looks at both passes)."""
        options = self.model_options
        for hook in sampler_hooks:
            options = comfy.model_patcher.set_model_options_post_cfg_function(
                options.copy(), hook, disable_cfg1_optimization=True
            )
        kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, options, is_model_options=True)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self.predict_noise, self, wrappers)
        return executor.execute(x, timestep, options, seed)

    def predict_noise(self, x, timestep, model_options, seed):
        negative, positive = self.conds.get("negative"), self.conds.get("positive")
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, negative, positive, self.cfg, model_options=model_options, seed=seed
        )

    def close(self) -> None:
        """Release the models and restore the MODEL, as the ends of `outer_sample` and `sample` do."""
        self.model_patcher.cleanup()
        comfy.sampler_helpers.cleanup_models(self.conds, self.loaded)
        comfy.samplers.cast_to_load_options(self.model_options, device=self.model_patcher.offload_device)
        self.model_patcher.hook_mode = self.hook_mode
        self.model_patcher.restore_hook_patches()


def keyframe_states(conds: dict) -> list[tuple]:
    """(keyframe group, its position) of every scheduled hook in the conditioning."""
    hooks = [hook for group in conds.values() for cond in group for hook in getattr(cond.get("hooks"), "hooks", ())]
    groups = {id(hook.hook_keyframe): hook.hook_keyframe for hook in hooks}.values()
    return [(group, {key: value for key, value in vars(group).items() if key.startswith("_cur")}) for group in groups]
