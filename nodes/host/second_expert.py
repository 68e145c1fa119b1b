"""The low-noise expert: a MODEL that is prepared in the middle of a run."""

from dataclasses import dataclass
from typing import Any

import comfy.context_windows
import comfy.hooks
import comfy.model_management
import comfy.model_patcher
import comfy.multigpu
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch

# What nodes may add to transformer_options for a run, as trees of dicts and lists.
ADDED = ("wrappers", "callbacks", "patches", "patches_replace")


@dataclass(frozen=True)
class RunInputs:
    """What ComfyUI calls `outer_sample` with, before anything is moved to a device, and what is known then."""

    noise: torch.Tensor  # (B, C, T, h, w), as latent
    latent: torch.Tensor
    mask: torch.Tensor | None
    seed: int | None
    shapes: list | None
    conds: dict[str, list[dict]]  # the conditioning before it is prepared for the first expert
    known: dict  # transformer_options of the first expert as the run began


class SecondExpert:
    """The low-noise MODEL, prepared as ComfyUI prepares a MODEL at the start of a run, on a device of its own.

    Its wrappers find here what they look for on a guider: cfg, conds, inner_model, model_patcher, model_options.

    Args:
        running: transformer_options of the run under way, whose noise levels and late additions it takes over.
    """

    def __init__(self, patcher, cfg: float, inputs: RunInputs, running: dict):
        self.model_patcher, self.cfg, self.hook_mode = patcher, cfg, patcher.hook_mode
        self.model_options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
        self.conds = {name: [cond.copy() for cond in conds] for name, conds in inputs.conds.items()}
        self.device = patcher.load_device
        self.inner_model = patcher.model
        self.loaded: list = []
        self.clones: list = []  # on other GPUs
        try:
            with comfy.model_management.cuda_device_context(self.device):
                self._load(inputs, running)
                self._prepare_conds(inputs)
                options = self.model_options["transformer_options"]
                options["sample_sigmas"] = running["sample_sigmas"].to(self.device)
                time_step_cache(self.model_options, patcher)
        except BaseException:
            self.close()
            raise

    def _load(self, inputs: RunInputs, running: dict) -> None:
        """The first half of `CFGGuider.sample` and `outer_sample`."""
        patcher, options = self.model_patcher, self.model_options
        transformer_options = options.setdefault("transformer_options", {})
        if comfy.samplers.get_total_hook_groups_in_conds(self.conds) <= 1:
            patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
        comfy.sampler_helpers.prepare_model_patcher(patcher, self.conds, options)
        comfy.samplers.filter_registered_hooks_on_conds(self.conds, options)
        added = without({kind: running[kind] for kind in ADDED if kind in running}, inputs.known)
        added = without(added, transformer_options)
        comfy.patcher_extension.merge_nested_dicts(transformer_options, added, copy_dict1=False)
        self.inner_model, self.conds, self.loaded = comfy.sampler_helpers.prepare_sampling(
            patcher, inputs.noise.shape, self.conds, options
        )
        self.clones = comfy.sampler_helpers.prepare_model_patcher_multigpu_clones(patcher, self.loaded, options)
        if self.clones:
            devices = [self.device, *(clone.load_device for clone in self.clones)]
            options["multigpu_thread_pool"] = comfy.multigpu.MultiGPUThreadPool(devices)
        comfy.samplers.cast_to_load_options(options, device=self.device, dtype=patcher.model_dtype())
        for model in (patcher, *self.clones):
            model.pre_run()

    def _prepare_conds(self, inputs: RunInputs) -> None:
        """The first half of `CFGGuider.inner_sample`."""
        noise, latent = (x.to(device=self.device, dtype=torch.float32) for x in (inputs.noise, inputs.latent))
        mask = None if inputs.mask is None else inputs.mask.to(self.device)
        if torch.count_nonzero(latent) > 0:
            latent = self.inner_model.process_latent_in(latent)
        self.inner_model.latent_shapes = inputs.shapes
        keyframes = keyframe_states(self.conds)
        self.conds = comfy.samplers.process_conds(
            self.inner_model, noise, self.conds, self.device, latent, mask, inputs.seed, latent_shapes=inputs.shapes
        )
        resume_keyframes(keyframes)  # where the first expert left them

    def outer_predict_noise(self, x, timestep, seed, sampler_hooks):
        """As a guider's, with the hooks that the sampler itself has added (CFG++ looks at both passes)."""
        options = self.model_options
        for hook in sampler_hooks:
            options = comfy.model_patcher.set_model_options_post_cfg_function(
                options.copy(), on_device(hook, x.device), disable_cfg1_optimization=True
            )
        kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, options, is_model_options=True)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self.predict_noise, self, wrappers)
        with comfy.model_management.cuda_device_context(self.device):
            return executor.execute(x.to(self.device), timestep.to(self.device), options, seed).to(x.device)

    def predict_noise(self, x, timestep, model_options, seed):
        negative, positive = self.conds.get("negative"), self.conds.get("positive")
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, negative, positive, self.cfg, model_options=model_options, seed=seed
        )

    def close(self) -> None:
        """Release the models and restore the MODEL, as the ends of `outer_sample` and `sample` do."""
        pool = self.model_options.pop("multigpu_thread_pool", None)
        if pool is not None:
            pool.shutdown()
        for model in (self.model_patcher, *self.clones):
            model.cleanup()
        comfy.sampler_helpers.cleanup_models(self.conds, self.loaded)
        comfy.samplers.cast_to_load_options(self.model_options, device=self.model_patcher.offload_device)
        self.model_patcher.hook_mode = self.hook_mode
        self.model_patcher.restore_hook_patches()
        resume_keyframes(keyframe_states(self.conds))  # the next run may begin on another device


def without(tree: dict, other: dict) -> dict:
    """The part of a tree of dicts and lists that is not in another one; their leaves are told apart by identity."""
    return {key: _rest(value, other.get(key)) for key, value in tree.items() if value is not other.get(key)}


def _rest(value: Any, known: Any) -> Any:
    if isinstance(value, dict) and isinstance(known, dict):
        return without(value, known)
    if isinstance(value, list) and isinstance(known, list):
        return [leaf for leaf in value if all(leaf is not each for each in known)]
    return value


def time_step_cache(model_options: dict, patcher) -> None:
    """Give a step cache (EasyCache, LazyCache) of this run the window that its percents mean under the MODEL's shift.

    ComfyUI asks the model itself, which has the shift of the run before.
    """
    options = model_options["transformer_options"]
    if "easycache" in options:
        sampling = patcher.get_model_object("model_sampling")
        options["easycache"] = options["easycache"].clone().prepare_timesteps(sampling)


def tell_step(model_options: dict, step: int) -> None:
    """Tell context windows, which go by the step, where this run is.

    They look for sigma among the levels of the run and, where a sampler asks in between, keep the step they found last,
    were it in the run before.
    """
    handler = model_options.get("context_handler")
    if isinstance(handler, comfy.context_windows.IndexListContextHandler):
        levels = model_options["transformer_options"]["sample_sigmas"]
        handler.set_step(levels[step : step + 1], model_options)


def on_device(hook, device: torch.device):
    """A hook of the sampler that is called with tensors on the sampler's device."""

    def call(args: dict):
        moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in args.items()}
        return hook(moved).to(args["denoised"].device)

    return call


def keyframe_states(conds: dict) -> list[tuple]:
    """(keyframe group, its position, on no device) of every scheduled hook in the conditioning."""
    hooks = [hook for group in conds.values() for cond in group for hook in getattr(cond.get("hooks"), "hooks", ())]
    groups = {id(hook.hook_keyframe): hook.hook_keyframe for hook in hooks}.values()
    return [(group, _position(group)) for group in groups]


def _position(group: comfy.hooks.HookKeyframeGroup) -> dict:
    state = {key: value for key, value in vars(group).items() if key.startswith("_cur")}
    return {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def resume_keyframes(states: list[tuple]) -> None:
    for group, state in states:
        vars(group).update(state)
