"""One sampling run across two MODELs: the handoff happens where the velocity is asked for."""

import comfy.hooks
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...wan_core.config import TRAIN_TIMESTEPS


class HandoffGuider(comfy.samplers.CFGGuider):
    """Asks the high-noise MODEL until a step starts below the boundary, and the low-noise MODEL from then on.

    The sampler sees one model throughout, so its history survives. Each MODEL keeps its own options, hooks and
    conditioning; the second one is loaded when it is first asked.

    Args:
        high, low: MODELs; low may be None, then high does every step.
        boundary: in [0, 1]; a step belongs to high iff its timestep, truncated, is at least 1000·boundary.
    """

    def __init__(self, high, low, boundary: float, cfg_high: float, cfg_low: float):
        super().__init__(high)
        self.set_cfg(cfg_high)
        self.low, self.boundary, self.cfg_low = low, boundary, cfg_low
        self.watch = None  # told what happens, as `preview.RunProgress` is

    def inner_set_conds(self, conds):
        super().inner_set_conds(conds)
        if (
            self.low is not None
            and self.low.is_dynamic()
            and any(map(comfy.sampler_helpers.cond_has_hooks, conds.values()))
        ):
            self.low = self.low.get_non_dynamic_delegate()  # as the base class does with the first MODEL

    def outer_sample(self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, *args, **kwargs):
        self._latched, self._second, self._started = False, None, 0
        churn = getattr(sampler, "extra_options", {}).get("s_churn", 0) > 0
        self._starts = sigmas.tolist() if churn else None
        self._given = {name: [cond.copy() for cond in conds] for name, conds in self.conds.items()}
        self._run = {"noise": noise, "latent": latent_image, "mask": denoise_mask, "sigmas": sigmas}
        self._seed = kwargs.get("seed", args[1] if len(args) > 1 else None)
        self._shapes = kwargs.get("latent_shapes", args[2] if len(args) > 2 else None)

        def count(step, x0, *rest):
            self._started = step + 1
            if self.watch is not None:
                self.watch.on_step(step, x0)
            if callback is not None:
                callback(step, x0, *rest)

        if self.watch is not None:
            self.watch.on_start(
                sigmas.tolist(), self.plan(sigmas), self.model_patcher.get_model_object("latent_format")
            )
        try:
            return super().outer_sample(noise, latent_image, sampler, sigmas, denoise_mask, count, *args, **kwargs)
        finally:
            if self._second is not None:
                self._second.close()
            self._second = self._given = self._run = None
            if self.watch is not None:
                self.watch.on_end()

    def _starts_low(self, sigma: float) -> bool:
        timestep = int(sigma * TRAIN_TIMESTEPS + 1e-4)  # float32 may hold a whole timestep a little too low
        return self.low is not None and timestep < self.boundary * TRAIN_TIMESTEPS

    def plan(self, sigmas) -> list[str]:
        """ "high" or "low" for each step of sigmas (N + 1)."""
        return ["low" if self._starts_low(sigma) else "high" for sigma in sigmas.tolist()[:-1]]

    def expert(self, sigma: float) -> str:
        """ "high" or "low" for an evaluation at `sigma`; once low, always low.

        Samplers that look ahead may hand over half a step early. Those that raise sigma before a step (churn) are
        judged by the sigma that the step starts at.
        """
        if self._starts is not None:
            sigma = self._starts[min(self._started, len(self._starts) - 1)]
        self._latched |= self._starts_low(sigma)
        return "low" if self._latched else "high"

    def outer_predict_noise(self, x, timestep, model_options={}, seed=None):
        """Wrappers of a MODEL (step caches among them) see the steps of that MODEL and no others."""
        who = self.expert(float(timestep.max()))
        if self.watch is not None:
            self.watch.on_expert(who)
        if who == "high":
            return super().outer_predict_noise(x, timestep, model_options, seed)
        if self._second is None:
            self._second = SecondExpert(self)
        hooks = (
            "sampler_post_cfg_function"  # what the sampler itself has added (CFG++ looks at both passes) comes along
        )
        added = model_options.get(hooks, [])[len(self.model_options.get(hooks, [])) :]
        return self._second.outer_predict_noise(x, timestep, seed, added)


class SecondExpert:
    """The low-noise MODEL, prepared in the middle of a run as ComfyUI prepares a MODEL at its start.

    Its wrappers find here what they look for on a guider: cfg, conds, inner_model, model_patcher, model_options.
    """

    def __init__(self, guider: HandoffGuider):
        run, self.model_patcher, self.cfg = guider._run, guider.low, guider.cfg_low
        self.loaded, self.conds = [], {name: [c.copy() for c in conds] for name, conds in guider._given.items()}
        self.hook_mode = self.model_patcher.hook_mode
        self.model_options = comfy.model_patcher.create_model_options_clone(self.model_patcher.model_options)
        self.model_options.setdefault("transformer_options", {})
        device = self.model_patcher.load_device
        try:
            if comfy.samplers.get_total_hook_groups_in_conds(self.conds) <= 1:
                self.model_patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
            comfy.sampler_helpers.prepare_model_patcher(self.model_patcher, self.conds, self.model_options)
            comfy.samplers.filter_registered_hooks_on_conds(self.conds, self.model_options)
            self.inner_model, self.conds, self.loaded = comfy.sampler_helpers.prepare_sampling(
                self.model_patcher, run["noise"].shape, self.conds, self.model_options
            )
            comfy.samplers.cast_to_load_options(
                self.model_options, device=device, dtype=self.model_patcher.model_dtype()
            )
            self.model_patcher.pre_run()
            noise, latent = (x.to(device=device, dtype=torch.float32) for x in (run["noise"], run["latent"]))
            if torch.count_nonzero(latent) > 0:
                latent = self.inner_model.process_latent_in(latent)
            self.inner_model.latent_shapes = guider._shapes
            keyframes = keyframe_states(self.conds)
            self.conds = comfy.samplers.process_conds(
                self.inner_model,
                noise,
                self.conds,
                device,
                latent,
                run["mask"],
                guider._seed,
                latent_shapes=guider._shapes,
            )
            for group, state in keyframes:  # the schedule of a hook goes on where the first expert left it
                vars(group).update(state)
            options = self.model_options["transformer_options"]
            options["sample_sigmas"] = run["sigmas"]
            if "easycache" in options:
                options["easycache"] = options["easycache"].clone().prepare_timesteps(self.inner_model.model_sampling)
        except BaseException:
            self.close()
            raise

    def outer_predict_noise(self, x, timestep, seed, sampler_hooks):
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

    def close(self):
        """Give back what the run took."""
        self.model_patcher.cleanup()
        comfy.sampler_helpers.cleanup_models(self.conds, self.loaded)
        comfy.samplers.cast_to_load_options(self.model_options, device=self.model_patcher.offload_device)
        self.model_patcher.hook_mode = self.hook_mode
        self.model_patcher.restore_hook_patches()


def keyframe_states(conds: dict) -> list[tuple]:
    """(keyframe group, where it stands) of every scheduled hook in the conditioning."""
    hooks = [hook for group in conds.values() for cond in group for hook in getattr(cond.get("hooks"), "hooks", ())]
    groups = {id(hook.hook_keyframe): hook.hook_keyframe for hook in hooks}.values()
    return [(group, {key: value for key, value in vars(group).items() if key.startswith("_cur")}) for group in groups]
