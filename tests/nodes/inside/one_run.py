"""Both experts are one run to other nodes: to what they add while it is under way, and to what goes by its steps."""

import comfy.samplers
import comfy_extras.nodes_context_windows as windows
import torch
from comfy.ldm.wan.model_multitalk import InfiniteTalkOuterSampleWrapper
from comfy.patcher_extension import WrappersMP
from host import comfy_nodes, difference, pair, part, run, texts

SHAPE, LONG = (1, 16, 3, 4, 6), (1, 16, 9, 4, 6)


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


def set_on_the_first_alone():
    """What was set on one MODEL before the run: the experts that were asked when it acted."""
    (high, low), _ = pair()
    seen, acted = [], {"wrapper": set(), "patch": set(), "replacement": set()}

    def note(name, result):
        acted[name].add(seen[-1])
        return result

    def wrapper(executor, *args, **kwargs):
        return note("wrapper", executor(*args, **kwargs))

    def replacement(args, extra):
        return note("replacement", extra["original_block"](args))

    clone = high.clone()
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "own", wrapper)
    clone.set_model_attn1_patch(lambda a: note("patch", a["x"]))
    clone.set_model_patch_replace(replacement, "dit", "double_block", 0)
    run(clone, low, steps=8, shape=SHAPE, watch=seen)
    return {"experts": sorted(set(seen))} | {name: sorted(experts) for name, experts in acted.items()}


def with_windows(model, seen: list[int]):
    """A clone in native context windows that move from step to step; the list gets the step of every evaluation."""
    clone = windows.WanContextWindowsManualNode.execute(model, 17, 4, "standard_uniform", 1, False, "pyramid", False)[0]
    handler = clone.model_options["context_handler"]

    def note(apply_model, args):
        seen.append(handler._step)
        return apply_model(args["input"], args["timestep"], **args["c"])

    clone.set_model_unet_function_wrapper(note)
    return clone


def context_windows():
    """Steps that the windows of a pair see under each sampler, and what differs between two queues."""
    (high, low), _ = pair()
    found = {}
    names = [f"official {s}" for s in part("wan_core.flow").SOLVERS]
    for name in (*names, "euler", "dpmpp_2m", "heun", "dpmpp_2s_ancestral", "dpm_adaptive", "churn"):
        numbers = dict(solver=name, schedule="simple", steps=12, shape=LONG)
        if name.startswith("official"):
            numbers["schedule"] = "official"
        if name == "churn":
            numbers |= dict(solver="euler", sampler=comfy.samplers.ksampler("euler", {"s_churn": 2.4}))
        seen = [], []
        models = [with_windows(model, steps) for model, steps in zip((high, low), seen, strict=True)]
        first = run(*models, **numbers)
        steps = [list(dict.fromkeys(steps)) for steps in seen]
        found[name] = [*steps, difference(first, run(*models, **numbers))]
    return found


def context_windows_and_native():
    """Difference to the native sampler: the MODEL alone and as a pair; and what the windows change at all."""
    (high, _), _ = pair()
    found, latent = {}, {"samples": torch.zeros(LONG)}
    for name in ("euler", "heun", "dpmpp_2s_ancestral"):
        numbers = dict(solver=name, schedule="simple", steps=8, shift=8.0, cfg=(3.0, 3.0), shape=LONG)
        model = with_windows(high, [])
        native = comfy_nodes.common_ksampler(model, 5, 8, 3.0, name, "simple", *texts(), latent)[0]["samples"]
        ours = run(model, None, **numbers), run(model, with_windows(high, []), **numbers)
        found[name] = [max(difference(native, each) for each in ours), difference(native, run(high, None, **numbers))]
    return found
