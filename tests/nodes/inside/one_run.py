"""What goes by the step or by percent of a run: equal to the native sampler, for both experts, in every queue."""

import logging
from collections import Counter

import comfy.hooks
import comfy.samplers
import comfy_extras.nodes_context_windows as windows
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_easycache as caches
import comfy_extras.nodes_model_advanced as advanced
import torch
from comfy.ldm.wan.model_multitalk import InfiniteTalkOuterSampleWrapper
from comfy.patcher_extension import WrappersMP
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
    """Steps with the second text: native, ours, a pair; and what differs in the latents. The official solvers' beside."""
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


def step_cache_windows():
    """Passes under EasyCache from 0 to 60 percent in the first and the second queue of one MODEL, and under native."""
    conds, numbers = texts(), dict(solver="euler", schedule="simple", steps=20, cfg=(1.0, 1.0), shift=2.0, shape=SHAPE)
    found = {}
    for label in ("ours", "pair"):
        (high, low), _ = pair()
        calls = []
        for model in (high, low):
            model.model.diffusion_model.blocks[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        cached = [caches.EasyCacheNode.execute(m, 3.0, 0.0, 0.6, False).result[0] for m in (high, low)]
        outs = []
        for _ in range(2):
            before = len(calls)
            outs.append(run(cached[0], cached[1] if label == "pair" else None, conds=conds, **numbers))
            outs.append(len(calls) - before)
        found[label] = [outs[1], outs[3], difference(outs[0], outs[2])]
    return found


def added_during_the_run():
    """InfiniteTalk replaces the first frames in every step, by a wrapper that it adds when a run begins."""
    (high, _), _ = pair()
    torch.manual_seed(10)
    frames = torch.randn(1, 16, 1, 4, 6)
    numbers = dict(solver="euler", schedule="simple", steps=8, cfg=(3.0, 3.0), shift=5.0, shape=SHAPE)

    def talking():
        clone = high.clone()
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "talk", InfiniteTalkOuterSampleWrapper(frames, None))
        return clone

    def patched_late():
        """A node that adds a patch, and a wrapper that all of its MODELs have already."""
        calls = []

        def wrapper(executor, x, *args, **kwargs):
            calls.append(1)
            return executor(x * 1.1, *args, **kwargs)

        def outer(executor, *args, **kwargs):
            options = executor.class_obj.model_options["transformer_options"]
            options.setdefault("patches", {}).setdefault("attn1_patch", []).append(lambda a: a["x"] * 1.3)
            return executor(*args, **kwargs)

        clone = high.clone()
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "own", wrapper)
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "late", outer)
        return clone, calls

    late, calls = patched_late()
    alone = run(late, None, **numbers)
    count = len(calls)
    twice = run(late, late.clone(), **numbers)
    seen = []
    return {
        "twice": difference(run(talking(), None, **numbers), run(talking(), talking(), **numbers, watch=seen)),
        "on the first alone": difference(run(talking(), None, **numbers), run(talking(), high.clone(), **numbers)),
        "change": difference(run(talking(), None, **numbers), run(high, None, **numbers)),
        "experts": sorted(set(seen)),
        "patched twice": difference(alone, twice),
        "patched change": difference(alone, run(high, None, **numbers)),
        "calls": [count, len(calls) - count],
    }


def context_windows():
    """Steps that native context windows see in a run, and what differs between two queues of one pair."""
    (high, low), _ = pair()
    found = {}
    names = [f"official {s}" for s in part("wan_core.flow").SOLVERS]
    for name in (*names, "euler", "dpmpp_2m", "heun", "dpmpp_2s_ancestral", "dpm_adaptive", "res_multistep", "churn"):
        node, seen = windows.WanContextWindowsManualNode, {"high": [], "low": []}
        models = []
        for expert, model in (("high", high), ("low", low)):
            model = node.execute(model, 17, 4, "standard_uniform", 1, False, "pyramid", False).result[0]
            handler = model.model_options["context_handler"]

            def count(apply_model, args, steps=seen[expert], handler=handler):
                steps.append(handler._step)
                return apply_model(args["input"], args["timestep"], **args["c"])

            model.set_model_unet_function_wrapper(count)
            models.append(model)
        sampler = comfy.samplers.ksampler("euler", {"s_churn": 2.4}) if name == "churn" else None
        schedule = "official" if name.startswith("official") else "simple"
        numbers = dict(solver=sampler or name, schedule=schedule, steps=12, shape=(1, 16, 9, 4, 6))
        first = run(*models, **numbers)
        steps = {expert: list(dict.fromkeys(found)) for expert, found in seen.items()}
        found[name] = [steps, difference(first, run(*models, **numbers))]
    return found
