"""Run by ComfyUI's own python: measures the pack against wan_core and against the native nodes, prints one JSON object.

    python inside.py COMFYUI PACK MODELS GOLDEN
"""

import asyncio
import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path

COMFYUI, PACK, MODELS, GOLDEN = sys.argv[1:5]
sys.argv = ["main", "--cpu"]
sys.path.insert(0, COMFYUI)
os.chdir(COMFYUI)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import nodes as native  # noqa: E402

asyncio.run(native.load_custom_node(PACK))
pack = PACK.replace(".", "_x_")  # the name that ComfyUI gives a pack


def part(name):
    return importlib.import_module(f"{pack}.{name}")


def difference(a, b):
    return (a.float() - b.float()).abs().max().item()


def pair(family="t2v-a14b"):
    folder = Path(MODELS) / "diffusion_models" / family
    files = [str(folder / f"wan2.2_{word}_noise_14B_fp16.safetensors") for word in ("high", "low")]
    return part("nodes.host.pair").load_pair(*files), files


def wide_pair(family, folder):
    """Files of a tiny pair with the text width of the real models, which is the only one that native ComfyUI takes."""
    config = dataclasses.replace(part("wan_core.demo.tiny").tiny_preset(family).dit, text_dim=4096)
    files = []
    for word in ("high", "low"):
        torch.manual_seed(len(files))
        state = part("wan_core.dit").WanDiT(config).state_dict()
        files.append(str(Path(folder) / f"{family}_{word}.safetensors"))
        save_file(state, files[-1])
    return files


def texts(width=64):
    torch.manual_seed(1)
    text = torch.zeros(2, 1, 512, width)
    text[0, :, :9], text[1, :, :5] = torch.randn(1, 9, width), torch.randn(1, 5, width)
    return [[text[0], {}]], [[text[1], {}]]


def run(high, low, solver="official unipc", schedule="official", steps=8, cfg=(4.0, 3.0), boundary=0.875, shift=12.0, seed=5, shape=(1, 16, 3, 4, 6), conds=None, watch=None):
    host = part("nodes.host.run")
    guider = host.make_guider(high, low, *(conds or texts()), *cfg, boundary)
    sigmas = host.make_sigmas(high, steps, shift, solver, schedule, 1.0)
    if watch is not None:
        predict = guider.predict_noise

        def count(x, timestep, *args, **kwargs):
            out = predict(x, timestep, *args, **kwargs)
            watch.append("low" if guider._latched else "high")
            return out

        guider.predict_noise = count
    return host.sample(guider, host.make_sampler(solver), sigmas, {"samples": torch.zeros(shape)}, seed)["samples"]


def normalised(samples):
    return comfy.latent_formats.Wan21().process_in(samples)


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


def equals_golden(tmp):
    """The recorded official text-to-video run through our loader, guider and sampler."""
    with safe_open(Path(GOLDEN) / "moe_t2v_e2e.safetensors", "pt") as file:
        config = json.loads(file.metadata()["meta"])["config"]
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    paths = []
    for who in ("high", "low"):
        folder = Path(tmp) / who
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config["model"]))
        weights = {key.removeprefix(f"w.{who}."): t for key, t in tensors.items() if key.startswith(f"w.{who}.")}
        save_file(weights, folder / "model.safetensors")
        paths.append(str(folder))
    high, low = part("nodes.host.pair").load_pair(*paths)
    comfy.sample.prepare_noise = lambda latent, *args: tensors["in.noise"][None]
    conds = [[[tensors[key][None], {}]] for key in ("in.context", "in.context_null")]
    low_cfg, high_cfg = config["guide_scale_low_high"]
    found = {}
    for solver, recorded in (("unipc", "unipc"), ("dpmpp_2m", "dpmpp")):
        seen = []
        out = run(high, low, f"official {solver}", steps=config["steps"], cfg=(high_cfg, low_cfg), boundary=config["boundary"],
                  shift=config["shift"], shape=(1, *tensors["in.noise"].shape), conds=conds, watch=seen)  # fmt: skip
        found[solver] = difference(normalised(out)[0], tensors[f"out.{recorded}.final"])
        found[f"{solver} experts"] = [int(who == "high") for who in seen] == tensors[f"out.{recorded}.expert_is_high"].tolist()
    return found


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


def native_and_ours(tmp):
    """Same weights as a native MODEL and as ours, in the native sampler and in ours."""
    found = {}
    for family in ("t2v-a14b", "i2v-a14b", "vace-a14b"):
        files = wide_pair(family, tmp)
        high, low = part("nodes.host.pair").load_pair(*files)
        native_high, native_low = (comfy.sd.load_diffusion_model(file) for file in files)
        positive, negative = texts(4096)
        if family == "i2v-a14b":
            torch.manual_seed(2)
            extra = {"concat_latent_image": torch.randn(1, 16, 3, 4, 6), "concat_mask": torch.ones(1, 1, 3, 4, 6)}
            extra["concat_mask"][:, :, :1] = 0
        elif family == "vace-a14b":
            torch.manual_seed(2)
            extra = {"vace_frames": [torch.randn(1, 32, 3, 4, 6)], "vace_mask": [torch.rand(1, 64, 3, 4, 6)], "vace_strength": [0.7]}
        else:
            extra = {}
        conds = [[[c[0][0], dict(extra)]] for c in (positive, negative)]
        numbers = dict(solver="euler", schedule="simple", steps=4, shift=8.0, conds=conds)
        ours = run(high, low, **numbers)
        found[f"{family} native models in our sampler"] = difference(run(native_high, native_low, **numbers), ours)
        alone = run(high, None, **numbers, cfg=(3.0, 3.0))
        for label, model in (("our model", high), ("native model", native_high)):
            (out,) = native.common_ksampler(model, 5, 4, 3.0, "euler", "simple", *conds, {"samples": torch.zeros(1, 16, 3, 4, 6)})
            found[f"{family} {label} in the native sampler"] = difference(out["samples"], alone)
    return found


def lora_changes_its_expert_alone():
    """x0 of every step with a LoRA on the low-noise expert: equal before the handoff, different after."""
    (high, low), _ = pair()
    torch.manual_seed(3)
    lora = {
        "diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.randn(4, 128),
        "diffusion_model.blocks.0.self_attn.q.lora_up.weight": torch.randn(128, 4),
    }
    patched, _ = comfy.sd.load_lora_for_models(low, None, lora, 1.0, 0)
    host, found = part("nodes.host.run"), {}
    for label, second in (("plain", low), ("lora", patched), ("plain again", low)):
        guider = host.make_guider(high, second, *texts(), 4.0, 3.0, 0.875)
        seen = []
        sigmas = host.make_sigmas(high, 8, 12.0, "official unipc", "official", 1.0)
        noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 3, 4, 6), 5)
        guider.sample(noise, torch.zeros(1, 16, 3, 4, 6), host.make_sampler("official unipc"), sigmas,
                      callback=lambda step, x0, x, total: seen.append(x0.clone()), disable_pbar=True, seed=5)  # fmt: skip
        found[label] = seen
    high_steps = part("wan_core.flow").Experts(None, 0, 0.875).plan(part("wan_core.flow").FlowSchedule.official(8, 12.0)).count("high")
    same = [torch.equal(a, b) for a, b in zip(found["plain"], found["lora"])]
    again = all(torch.equal(a, b) for a, b in zip(found["plain"], found["plain again"]))
    return {"high_steps": high_steps, "same": same, "model left alone": again}


def nothing_is_left_behind():
    """Interrupt and shortage in either expert: no patcher stays in use, and the next run gives the same numbers."""
    (high, low), _ = pair()
    reference, left = run(high, low), []
    for who in (high, low):
        for error in (comfy.model_management.InterruptProcessingException, torch.OutOfMemoryError):
            def fail(*args, error=error):
                raise error("now")

            handle = who.model.diffusion_model.blocks[1].register_forward_pre_hook(fail)
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


if __name__ == "__main__":
    import tempfile

    with torch.inference_mode(), tempfile.TemporaryDirectory() as tmp:
        checks = [equals_wan_core, same_model_twice, steps_per_expert, lora_changes_its_expert_alone, nothing_is_left_behind]
        result = {check.__name__: check() for check in checks}
        result |= {check.__name__: check(tmp) for check in (native_and_ours, equals_golden)}
    print("RESULT " + json.dumps(result))
