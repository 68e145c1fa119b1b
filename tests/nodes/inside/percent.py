"""What goes by percent of a run: equal to the native sampler, for both experts, in every queue."""

import contextlib
import functools
import logging
from collections import Counter

import comfy.hooks
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_easycache as caches
import comfy_extras.nodes_model_advanced as advanced
import torch
from host import comfy_nodes, difference, pair, part, run, texts

SHAPE = (1, 16, 3, 4, 6)
WINDOWS = ((0.0, 0.5), (0.25, 0.75), (0.6, 1.0))


def windowed(start, end):
    """Conditioning with a second positive text that counts between two shares of a run."""
    positive, negative = texts()
    torch.manual_seed(9)
    return [*positive, [torch.randn(1, 512, 64), {"start_percent": start, "end_percent": end}]], negative


def watched(model, seen: Counter):
    """A clone that counts the texts of the positive pass at each noise level."""

    def count(apply_model, args):
        seen[round(float(args["timestep"][0]), 6)] += args["cond_or_uncond"].count(0)
        return apply_model(args["input"], args["timestep"], **args["c"])

    clone = model.clone()
    clone.set_model_unet_function_wrapper(count)
    return clone


def native_run(model, shift, conds, steps, schedule):
    """The native sampler at a shift; of our own grid it is given the noise levels."""
    model = advanced.ModelSamplingSD3().patch(model, shift)[0]
    latent = {"samples": torch.zeros(SHAPE)}
    if schedule != "official":
        return comfy_nodes.common_ksampler(model, 5, steps, 3.0, "euler", schedule, *conds, latent)[0]["samples"]
    sigmas = part("nodes.host.sampling").official_sigmas(steps, shift, "unipc")
    euler = comfy.samplers.sampler_object("euler")
    return custom.SamplerCustom.execute(model, True, 5, 3.0, *conds, euler, sigmas, latent).result[0]["samples"]


def percent_windows():
    """Steps with the second text: native, ours, a pair, and under an official solver; and what differs in latents."""
    (high, _), _ = pair()
    found = {}
    for shift in (5.0, 12.0):
        for schedule in ("simple", "beta", "normal", "official"):
            for start, end in WINDOWS:
                conds, counts = windowed(start, end), []

                def steps_with_both(go, conds=conds, counts=counts):
                    seen = Counter()
                    out = go(lambda model: watched(model, seen), conds)
                    counts.append(sum(count == 2 for count in seen.values()))
                    return out

                numbers = dict(solver="euler", schedule=schedule, steps=40, cfg=(3.0, 3.0), shift=shift, shape=SHAPE)
                outs = [
                    steps_with_both(lambda watch, c, n=(shift, schedule): native_run(watch(high), n[0], c, 40, n[1])),
                    steps_with_both(lambda watch, c, n=numbers: run(watch(high), None, conds=c, **n)),
                    steps_with_both(lambda watch, c, n=numbers: run(watch(high), watch(high), conds=c, **n)),
                ]
                if schedule == "official":
                    numbers["solver"] = "official unipc"
                    steps_with_both(lambda watch, c, n=numbers: run(watch(high), watch(high), conds=c, **n))
                differ = max(difference(outs[0], out) for out in outs[1:])
                found[f"{schedule} {shift:g} {start:g}-{end:g}"] = [counts, differ]
    return found


def hooked():
    """Conditioning with a LoRA whose strength is scheduled by percent."""
    torch.manual_seed(3)
    lora = {
        f"diffusion_model.blocks.0.self_attn.q.lora_{name}.weight": torch.randn(*size)
        for name, size in (("down", (4, 128)), ("up", (128, 4)))
    }
    group = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((0.0, 0.0), (1.0, 0.4), (0.3, 0.8)):
        frames.add(comfy.hooks.HookKeyframe(strength, start_percent=start, guarantee_steps=1))
    group.set_keyframes_on_hooks(frames)
    return [[[c[0][0], {"hooks": group}]] for c in texts()]


def scheduled_hooks():
    """Difference to the native sampler at two shifts, alone and as a pair; and what the schedule changes at all."""
    (high, _), _ = pair()
    found, outs = {}, []
    for shift in (3.0, 12.0):
        numbers = dict(solver="euler", schedule="simple", steps=12, cfg=(3.0, 3.0), shift=shift, shape=SHAPE)
        native = native_run(high, shift, hooked(), 12, "simple")
        ours = run(high, None, conds=hooked(), **numbers)
        twice = run(high, high.clone(), conds=hooked(), **numbers)
        found[f"{shift:g}"] = max(difference(native, ours), difference(native, twice))
        outs += [ours, run(high, None, **numbers)]
    return {**found, "change": min(difference(outs[0], outs[1]), difference(outs[2], outs[3]))}


def the_shift_of_the_model():
    """0 follows ModelSamplingSD3; any other shift does not, and says so in the log and to the node."""
    (high, low), _ = pair()
    moved = [advanced.ModelSamplingSD3().patch(model, 5.0)[0] for model in (high, low)]
    numbers, conds = dict(steps=6, shape=SHAPE), windowed(0.0, 0.5)
    found = {
        f"{solver}, {what}": difference(run(*models, solver, schedule, shift=shift, conds=conds, **numbers), plain)
        for solver, schedule in (("official unipc", "official"), ("euler", "simple"))
        for what, models, shift, plain in (
            ("followed", moved, 0.0, run(high, low, solver, schedule, shift=5.0, conds=conds, **numbers)),
            ("not followed", moved, 12.0, run(high, low, solver, schedule, shift=12.0, conds=conds, **numbers)),
            ("of the loader", (high, low), 0.0, run(high, low, solver, schedule, shift=8.0, conds=conds, **numbers)),
        )
    }
    make, lines = part("nodes.host.sampling").make_guider, []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    told = [
        make(*models, *texts(), 3.0, 3.0, 0.9, "7", shift).progress.ignored_shift
        for models, shift in ((moved, 12.0), (moved, 0.0), (moved, 5.0), ((high, low), 12.0), (moved, None))
    ]
    logging.getLogger().removeHandler(handler)
    return {"differences": found, "told": told, "lines": [line for line in lines if "shift" in line]}


def the_models_afterwards():
    """What a run at another shift leaves behind, finished or not: in the shift, and in the native sampler's numbers."""
    (high, low), _ = pair()
    conds, latent = windowed(0.0, 0.5), {"samples": torch.zeros(SHAPE)}

    def native():
        return comfy_nodes.common_ksampler(high, 5, 6, 3.0, "euler", "simple", *conds, latent)[0]["samples"]

    def fail(*_):
        raise torch.OutOfMemoryError("now")

    before, shifts = native(), []
    for hook in (None, fail):
        handle = low.model.diffusion_model.register_forward_pre_hook(hook) if hook else None
        with contextlib.suppress(torch.OutOfMemoryError):
            run(high, low, steps=6, shift=3.0, shape=SHAPE, conds=conds)
            shifts.append("finished")
        if handle is not None:
            handle.remove()
        shifts += [model.get_model_object("model_sampling").shift for model in (high, low)]
    return {"shifts": shifts, "native": difference(before, native())}


def step_cache_windows():
    """Passes under EasyCache from 0 to 60 percent in two queues of one MODEL: native, ours, a pair; and latents.

    Natively the first queue goes by another shift, as the MODEL is not loaded when the cache looks at it.
    """
    conds, latent, found = texts(), {"samples": torch.zeros(SHAPE)}, {}
    numbers = dict(solver="euler", schedule="simple", steps=20, cfg=(1.0, 1.0), shift=2.0, shape=SHAPE)

    def native(model):
        model = advanced.ModelSamplingSD3().patch(model, 2.0)[0]
        return lambda: comfy_nodes.common_ksampler(model, 5, 20, 1.0, "euler", "simple", *conds, latent)[0]["samples"]

    for label in ("native", "ours", "pair"):
        (high, _), _ = pair()
        calls = []
        high.model.diffusion_model.blocks[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        high = caches.EasyCacheNode.execute(high, 3.0, 0.0, 0.6, False).result[0]
        go = native(high)
        if label != "native":
            go = functools.partial(run, high, high.clone() if label == "pair" else None, conds=conds, **numbers)
        first, passes = go(), len(calls)
        second = go()
        found[label] = [passes, len(calls) - passes, difference(first, second), second.double().sum().item()]
    return found
