"""The experts on several devices. There is but one here, so that other indices of it stand for other GPUs."""

import contextlib
import copy
import threading

import comfy.model_management
import comfy.multigpu
import percent
import torch
from host import difference, pair, part, run, texts
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

FIRST, SECOND = torch.device("cpu", 0), torch.device("cpu", 1)
PLACE = "_place"  # attribute of a tensor: the device it was asked to be on


@contextlib.contextmanager
def two_devices():
    """ComfyUI sees a second device."""
    before = comfy.model_management.get_all_torch_devices
    comfy.model_management.get_all_torch_devices = lambda exclude_current=False: [torch.device("cpu"), SECOND]
    try:
        yield
    finally:
        comfy.model_management.get_all_torch_devices = before


def guidance_on_two_devices():
    """*MultiGPU CFG Split* on both experts: passes on each device and thread, and the difference to one device."""
    models, _ = pair()
    plain = run(*models)
    with two_devices():
        split = [comfy.multigpu.create_multigpu_deepclones(model, 2) for model in models]
    clones = [model.get_additional_models_with_key("multigpu")[0] for model in split]
    found, threads = {}, set()
    for expert, model, clone in zip(("high", "low"), split, clones, strict=True):
        calls = found[expert] = {"own": 0, "clone": 0}
        for name, patcher in (("own", model), ("clone", clone)):

            def count(*_, calls=calls, name=name):
                calls[name] += 1
                threads.add(threading.get_ident())

            patcher.model.diffusion_model.register_forward_pre_hook(count)
    out = difference(run(*split), plain)
    found = copy.deepcopy(found) | {"difference": out, "threads": len(threads)}

    def fail(*_):
        raise torch.OutOfMemoryError("now")

    handle = clones[1].model.diffusion_model.register_forward_pre_hook(fail)
    with contextlib.suppress(torch.OutOfMemoryError):
        run(*split)
        found["difference"] = "no error"
    handle.remove()
    left = [thread.name for thread in threading.enumerate() if "_worker_loop" in thread.name]
    found["left"] = left + [1 for patcher in (*split, *clones) if patcher.model.current_patcher is not None]
    found["again"] = difference(run(*split), plain)
    found["lost"] = [1 for loaded in comfy.model_management.current_loaded_models if loaded.is_dead()]
    return found


class Places(TorchFunctionMode):
    """Tensors remember the device that they were put on, and an operation on two devices is an error, as on GPUs."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.device.__get__:
            return getattr(args[0], PLACE, None) or func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        found = {getattr(tensor, PLACE, None) for tensor in tensors} - {None}
        out = func(*args, **kwargs)
        if func in (torch.Tensor.copy_, torch.Tensor.__setitem__):
            return out
        if func is torch.Tensor.to:
            moved = [leaf for leaf in tree_leaves((args[1:], kwargs)) if isinstance(leaf, torch.Tensor | torch.device)]
            if moved:
                found = {moved[0] if isinstance(moved[0], torch.device) else getattr(moved[0], PLACE, None)}
        elif func in (torch.Tensor.cpu, torch.Tensor.numpy):
            found = set()
        elif isinstance(kwargs.get("device"), torch.device):
            found = {kwargs["device"]}
        if len(found) > 1:
            raise RuntimeError(f"{func} of tensors on {found}")
        place = next((device for device in found if device is not None and device.index is not None), None)
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf is not out:
                setattr(leaf, PLACE, place)
        if isinstance(out, torch.Tensor) and getattr(out, PLACE, None) != place:
            out = out.view_as(out) if any(out is tensor for tensor in tensors) else out
            setattr(out, PLACE, place)
        return out


def on(model, device):
    """As *Select Model Device* gives it back."""
    clone = model.clone()
    clone.load_device = device
    return clone


def experts_on_two_devices():
    """Differences to both experts on one device."""
    models, _ = pair()
    placed = on(models[0], FIRST), on(models[1], SECOND)
    host, found = part("nodes.host.sampling"), {}

    def inpaint(high, low):
        torch.manual_seed(11)
        mask = (torch.rand(1, 1, 3, 4, 6) > 0.5).float()
        latent = {"samples": torch.randn(1, 16, 3, 4, 6), "noise_mask": mask}
        guider = host.make_guider(high, low, *texts(), 4.0, 3.0, 0.875, shift=5.0)
        sigmas = host.make_sigmas(high, 8, 5.0, "official unipc", "official", 1.0)
        return host.sample(guider, host.make_sampler("official unipc"), sigmas, latent, 5)["samples"]

    hooked = percent.hooked()
    runs = {
        "official unipc": run,
        "a mask": inpaint,
        "guidance that looks at both passes": lambda *m: run(*m, "euler_cfg_pp", "simple"),
        "scheduled hooks": lambda *m: run(*m, "euler", "simple", conds=hooked),
        "scheduled hooks again": lambda *m: run(*m, "euler", "simple", conds=hooked),
    }
    for name, go in runs.items():
        with Places():
            out = go(*placed)
        found[name] = difference(out, go(*models))
    return found
