"""The pack against wan_core, the recordings, and itself."""

import contextlib
import json
from pathlib import Path

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from comfy.latent_formats import Wan22
from host import difference, normalised, pair, part, run, texts, written_down
from places import GOLDEN
from safetensors import safe_open
from safetensors.torch import save_file


def equals_wan_core():
    """Same noise, same text: our sampler node and the library, for every official solver."""
    (high, low), files = pair()
    load_dit = part("wan_core.checkpoints").load_dit
    flow = part("wan_core.flow")
    experts = flow.Experts(load_dit(files[0]), load_dit(files[1]), 0.875, 4.0, 3.0)
    positive, negative = (c[0][0] for c in texts())
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 3, 4, 6), 5)
    found = {}
    for solver in flow.SOLVERS:
        schedule = flow.FlowSchedule.official(8, 12.0, solver)
        library = flow.sample(experts.velocity(positive, negative), noise, schedule, solver)
        found[solver] = difference(normalised(run(high, low, f"official {solver}")), library)
    return found


def recording(name, folder, **experts):
    """(config, tensors, files of the experts) of a recorded run; `experts`: file name → prefix of its weights."""
    with safe_open(Path(GOLDEN) / f"{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["meta"])["config"]
        tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    paths = []
    for expert, prefix in experts.items():
        where = Path(folder) / f"{name}_{expert}"
        where.mkdir()
        (where / "config.json").write_text(json.dumps(config["model"]))
        weights = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        save_file(weights, where / "model.safetensors")
        paths.append(str(where))
    return config, tensors, paths


@contextlib.contextmanager
def drawn(noise):
    """ComfyUI draws this noise."""
    before, comfy.sample.prepare_noise = comfy.sample.prepare_noise, lambda latent, *args: noise
    try:
        yield
    finally:
        comfy.sample.prepare_noise = before


def recorded_texts(tensors):
    return [[[tensors[key][None], {}]] for key in ("in.context", "in.context_null")]


def equals_golden(tmp):
    """The recorded official text-to-video run through our loader, guider and sampler."""
    config, tensors, paths = recording("moe_t2v_e2e", tmp, high="w.high.", low="w.low.")
    high, low = part("nodes.host.loading").load_pair(*paths)
    low_cfg, high_cfg = config["guide_scale_low_high"]
    found = {}
    for solver, recorded in (("unipc", "unipc"), ("dpmpp_2m", "dpmpp")):
        seen = []
        with drawn(tensors["in.noise"][None]):
            out = run(
                high,
                low,
                f"official {solver}",
                steps=config["steps"],
                cfg=(high_cfg, low_cfg),
                boundary=config["boundary"],
                shift=config["shift"],
                shape=(1, *tensors["in.noise"].shape),
                conds=recorded_texts(tensors),
                watch=seen,
            )
        found[solver] = difference(normalised(out)[0], tensors[f"out.{recorded}.final"])
        is_high = tensors[f"out.{recorded}.expert_is_high"].tolist()
        found[f"{solver} experts"] = [int(expert == "high") for expert in seen] == is_high
    return found


def equals_golden_first_frame(tmp):
    """The recorded official TI2V-5B run, whose first frame is given by a noise mask and restored after every step."""
    config, tensors, paths = recording("ti2v_e2e", tmp, dit="w.dit.")
    model, host, space = part("nodes.host.loading").load_expert(*paths), part("nodes.host.sampling"), Wan22()
    samples, mask = torch.zeros_like(tensors["in.noise"])[None], torch.ones(1, 1, *tensors["in.noise"].shape[1:])
    samples[:, :, :1], mask[:, :, :1] = tensors["out.cond_latent"], 0
    guider = host.make_guider(model, None, *recorded_texts(tensors), config["guide_scale"], 1.0, 0.5)
    sigmas = host.make_sigmas(model, config["steps"], config["shift"], "official unipc", "official", 1.0)
    latent = {"samples": space.process_out(samples), "noise_mask": mask}
    with drawn(tensors["in.noise"][None]):
        out = host.sample(guider, host.make_sampler("official unipc"), sigmas, latent, 0)["samples"]
    return difference(space.process_in(out)[0], tensors["out.latents"][-1])


def same_model_twice():
    """Every sampler: the model in both slots against the model alone; names of those that differ by a bit."""
    (high, _), _ = pair()
    clone, wrong, handed_over = high.clone(), [], 0
    names = [f"official {s}" for s in part("wan_core.flow").SOLVERS]
    for name in [*names, *comfy.samplers.KSampler.SAMPLERS]:
        schedule, seen = ("official" if name.startswith("official") else "simple"), []
        numbers = dict(schedule=schedule, steps=5, cfg=(3.0, 3.0), shift=5.0, boundary=0.8)
        alone = run(high, None, name, **numbers)
        if not torch.equal(alone, run(high, clone, name, **numbers, watch=seen)):
            wrong.append(name)
        handed_over += {"high", "low"} == set(seen)
    return {"wrong": wrong, "handed_over": handed_over}


def steps_per_expert():
    (high, low), _ = pair()
    found = {}
    for steps, shift, boundary in ((40, 12.0, 0.875), (40, 5.0, 0.9), (20, 8.0, 0.875), (4, 5.0, 0.9), (2, 5.0, 0.9)):
        seen = []
        run(high, low, steps=steps, shift=shift, boundary=boundary, cfg=(1.0, 1.0), watch=seen, shape=(1, 16, 1, 2, 2))
        found[f"{steps} {shift:g} {boundary:g}"] = [seen.count("high"), seen.count("low")]
    for boundary in (0.999, 0.5):  # timesteps exactly on the boundary
        seen = []
        timesteps = part("wan_core.flow").FlowSchedule.official(10, 1.0).timesteps.tolist()
        edge = min(timesteps, key=lambda t: abs(t - 1000 * boundary)) / 1000
        run(high, low, steps=10, shift=1.0, boundary=edge, cfg=(1.0, 1.0), watch=seen, shape=(1, 16, 1, 2, 2))
        found[f"edge {boundary}"] = [seen.count("high"), sum(t >= edge * 1000 for t in timesteps)]
    return found


def churn():
    """A sampler that raises sigma before its steps: the expert of each step, and what the plan says."""
    (high, low), _ = pair()
    host, seen, raised = part("nodes.host.sampling"), [], 1.2  # by 2.4 / 12 steps
    guider = host.make_guider(high, low, *texts(), 4.0, 3.0, 0.875)
    guider.progress = written_down(seen)
    sigmas = host.make_sigmas(high, 12, 5.0, "euler", "simple", 1.0)
    sampler = comfy.samplers.ksampler("euler", {"s_churn": 2.4})
    host.sample(guider, sampler, sigmas, {"samples": torch.zeros(1, 16, 1, 2, 2)}, 5)
    return {
        "experts": seen,
        "plan": guider.plan(sigmas),
        "by raised sigma": guider.plan(sigmas * raised),
        "run dropped": guider._run is None,
    }


def lora_changes_its_expert_alone():
    """x0 of every step with a LoRA on the low-noise expert: equal before the handoff, different after."""
    (high, low), _ = pair()
    torch.manual_seed(3)
    lora = {
        "diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.randn(4, 128),
        "diffusion_model.blocks.0.self_attn.q.lora_up.weight": torch.randn(128, 4),
    }
    patched, _ = comfy.sd.load_lora_for_models(low, None, lora, 1.0, 0)
    host, found = part("nodes.host.sampling"), {}
    for label, second in (("plain", low), ("lora", patched), ("plain again", low)):
        found[label] = seen = []
        guider = host.make_guider(high, second, *texts(), 4.0, 3.0, 0.875)
        sigmas = host.make_sigmas(high, 8, 12.0, "official unipc", "official", 1.0)
        noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 3, 4, 6), 5)
        guider.sample(
            noise,
            torch.zeros(1, 16, 3, 4, 6),
            host.make_sampler("official unipc"),
            sigmas,
            callback=lambda step, x0, x, total, seen=seen: seen.append(x0.clone()),
            disable_pbar=True,
            seed=5,
        )
    high_steps = (
        part("wan_core.flow")
        .Experts(None, 0, 0.875)
        .plan(part("wan_core.flow").FlowSchedule.official(8, 12.0))
        .count("high")
    )
    same = [torch.equal(a, b) for a, b in zip(found["plain"], found["lora"], strict=True)]
    again = all(torch.equal(a, b) for a, b in zip(found["plain"], found["plain again"], strict=True))
    return {"high_steps": high_steps, "same": same, "model left alone": again}


def nothing_is_left_behind():
    """Interrupt and shortage in either expert: no patcher stays in use, and the next run gives the same numbers."""
    (high, low), _ = pair()
    reference, left = run(high, low), []
    for expert in (high, low):
        for error in (comfy.model_management.InterruptProcessingException, torch.OutOfMemoryError):

            def fail(*args, error=error):
                raise error("now")

            handle = expert.model.diffusion_model.blocks[1].register_forward_pre_hook(fail)
            try:
                run(high, low)
                left.append("no error")
            except error:
                pass
            handle.remove()
            left += [1 for model in (high, low) if model.model.current_patcher is not None]
            if not torch.equal(run(high, low), reference):
                left.append("different numbers")
    return {"left": left}


def batch_index_is_honoured():
    """Clip 2 of a batch, asked for alone through its batch index, starts from the noise it had in the batch."""
    (high, _), _ = pair()
    host = part("nodes.host.sampling")

    def first_step(latent):
        guider, seen = host.make_guider(high, None, *texts(), 1.0, 1.0, 0.5), []
        run_sample = guider.sample
        guider.sample = lambda noise, *args, **kwargs: (seen.append(noise), run_sample(noise, *args, **kwargs))[1]
        host.sample(
            guider,
            host.make_sampler("official euler"),
            host.make_sigmas(high, 1, 5.0, "official euler", "official", 1.0),
            latent,
            5,
        )
        return seen[0]

    batch = first_step({"samples": torch.zeros(3, 16, 1, 2, 2)})
    alone = first_step({"samples": torch.zeros(1, 16, 1, 2, 2), "batch_index": [2]})
    native = comfy.sample.prepare_noise(torch.zeros(3, 16, 1, 2, 2), 5)
    return {"alone": torch.equal(batch[2:], alone), "as native": torch.equal(batch, native)}


def schedules():
    """What the sampler node runs for every scheduler: (inputs, noise levels), for the plot to be held against."""
    (high, _), _ = pair()
    make, found = part("nodes.host.sampling").make_sigmas, []
    for schedule in ("official", *comfy.samplers.KSampler.SCHEDULERS):
        for solver, steps, shift, denoise in (
            ("official unipc", 20, 8.0, 1.0),
            ("official dpmpp_2m", 7, 5.0, 1.0),
            ("uni_pc", 9, 12.0, 1.0),
            ("euler", 10, 3.0, 0.6),
        ):
            inputs = dict(schedule=schedule, solver=solver, steps=steps, shift=shift, denoise=denoise)
            found.append([inputs, make(high, **inputs).tolist()])
    return found


def a_run_in_two_parts():
    """Cut at every step: the difference to the run in one; and what an empty window gives back."""
    (high, low), _ = pair()
    host, found = part("nodes.host.sampling"), {"whole": 0.0}
    latent = {"samples": torch.zeros(1, 16, 3, 4, 6)}
    for solver, schedule in (("official euler", "official"), ("euler", "simple")):
        sigmas = host.make_sigmas(high, 5, 12.0, solver, schedule, 1.0)

        def go(some, latent, add_noise=True, solver=solver):
            guider = host.make_guider(high, low, *texts(), 4.0, 3.0, 0.875)
            return host.sample(guider, host.make_sampler(solver), some, latent, 5, add_noise=add_noise)

        whole = go(sigmas, latent)["samples"]
        for cut in range(1, 5):
            second = go(sigmas[cut:], go(sigmas[: cut + 1], latent), add_noise=False)["samples"]
            found["whole"] = max(found["whole"], difference(whole, second))
    found["empty window"] = go(sigmas[2:3], latent) is latent
    return found


def modulations_take_loras():
    """A LoRA on modulations, as ComfyUI loads it, against weights changed by hand; and the MODEL afterwards."""
    (high, low), _ = pair()
    plain = run(high, low)
    torch.manual_seed(8)
    names = ("blocks.0.modulation", "blocks.1.modulation", "head.modulation")
    deltas = {name: 0.2 * torch.randn_like(high.model.diffusion_model.get_parameter(name)) for name in names}
    lora = {f"diffusion_model.{name}.diff": delta for name, delta in deltas.items()}
    patched = [comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0)[0] for model in (high, low)]
    with_lora, again = run(*patched), run(high, low)
    for model in (high, low):
        for name, delta in deltas.items():
            model.model.diffusion_model.get_parameter(name).data += 0.5 * delta
    by_hand = run(high, low)
    for model in (high, low):
        for name, delta in deltas.items():
            model.model.diffusion_model.get_parameter(name).data -= 0.5 * delta
    return {
        "by hand": difference(with_lora, by_hand),
        "change": difference(with_lora, plain),
        "left alone": difference(again, plain),
    }
