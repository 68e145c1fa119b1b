"""Tiny MODELs of every native Wan family, conditioned by ComfyUI's own nodes: our sampler against the native one."""

import traceback
from collections.abc import Callable
from pathlib import Path

import comfy.k_diffusion.sampling
import comfy.sample
import comfy.samplers
import comfy.supported_models
import comfy_extras.nodes_ar_video as ar
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_model_advanced as advanced
import torch
from families import FAMILIES, FRAMES, SIDE, SIZE, Family, header, images, load, noise
from host import difference, part, texts
from places import MODELS
from safetensors.torch import save_file

import nodes as comfy_nodes

STEPS, SEED = 3, 5
VAES = {
    channels: part("nodes.host.vae").load_vae(str(Path(MODELS) / "vae" / name))
    for channels, name in ((16, "i2v-a14b/wan_2.1_vae.safetensors"), (48, "ti2v-5b/wan_2.2_vae.safetensors"))
}


def families(tmp: str) -> dict:
    """Family → its nodes and what each run found, or the traceback of what failed."""
    found = {name: _attempt(_measure, family, Path(tmp) / "family.safetensors") for name, family in FAMILIES.items()}
    return found | {"Causal Forcing": _attempt(causal_forcing, Path(tmp) / "family.safetensors")}


def native_classes(tmp: str) -> list[str]:
    """Every Wan class that ComfyUI tells files by."""
    return [entry.__name__ for entry in comfy.supported_models.models if entry.__name__.startswith("WAN")]


def _attempt(measure: Callable[..., dict], *arguments) -> dict:
    try:
        return measure(*arguments)
    except Exception:
        return {"failed": traceback.format_exc()}


def _measure(family: Family, file: Path) -> dict:
    """The runs of a family, and what its file gives in our loader."""
    high, low = load(family, 0), load(family, 1)
    given = [(node, put() if callable(put) else put) for node, put in family.given] or [(None, {})]
    runs = [_run(family, high, low, *each) for each in given]
    return {"native": family.native, "nodes": ids(family), "runs": runs, "ours": _ours(family, file, high, given)}


def _ours(family: Family, file: Path, native_model, given: list) -> float | str:
    """How far a MODEL of ours is from the native one, as a part of the largest value; or why there is none."""
    save_file(native_model.model.diffusion_model.state_dict(), file, header(family))
    largest = 0.0
    try:
        model = part("nodes.host.loading").load_expert(str(file))
        for node, connected in given:
            theirs = native(family, *condition(node, native_model, connected))
            one, *rest = condition(node, model, connected)
            largest = max(largest, difference(ours(family, one, None, *rest), theirs) / theirs.abs().max().item())
    except part("wan_core.errors").WanError as error:
        return str(error)
    return largest


def _run(family: Family, high, low, node, connected: dict) -> dict:
    """Differences to native: of one MODEL, of that MODEL in both slots, of two MODELs."""
    one, two = (condition(node, model, connected) for model in (high, low))
    alone = native(family, *one)
    assert alone.isfinite().all() and alone.std() > 0
    found = {
        "conditions": sorted(set().union(*(options for _, options in one[1]))),
        "single": difference(ours(family, one[0], None, *one[1:]), alone),
    }
    if family.pair:
        found["twice"] = difference(ours(family, one[0], one[0].clone(), *one[1:]), alone)
        found["pair"] = difference(ours(family, one[0], two[0], *one[1:]), handed_over(family, one, two))
    return found


def causal_forcing(file: Path) -> dict:
    """Frame blocks one after the other, by the sampler that ComfyUI has for them: under our guider and a native one."""
    family = Family("WAN21_CausalAR_T2V", told={"causal_ar": True}, shift=5.0)
    model = load(family, 0)
    latent = ar.EmptyARVideoLatent.execute(SIDE, SIDE, FRAMES, 1).result[0]
    sampler = ar.SamplerARVideo.execute(1).result[0]
    started, first = ar.ARVideoI2V.execute(model, VAES[16], images(), SIDE, SIDE, FRAMES, 1).result
    runs = []
    for patched, start in ((model, latent), (started, first)):
        theirs = custom.CFGGuider.execute(patched, *texts(4096), 1.0).result[0]
        mine = part("nodes.host.sampling").make_guider(patched, None, *texts(4096), 1.0, 1.0, 0.5)
        rest = (sampler, sigmas(family, patched), start)
        drawn = custom.RandomNoise.execute(SEED).result[0]
        made = [custom.SamplerCustomAdvanced.execute(drawn, guider, *rest).result[0] for guider in (theirs, mine)]
        runs.append({"conditions": [], "single": difference(*(each["samples"] for each in made))})
    nodes = ["ARVideoI2V", "EmptyARVideoLatent", "SamplerARVideo"]
    return {"native": family.native, "nodes": nodes, "runs": runs, "ours": _ours(family, file, model, [])}


def ours(family: Family, high, low, positive, negative, latent) -> torch.Tensor:
    """What our sampler node makes: one step by the high-noise MODEL, the others by the low-noise one."""
    boundary = sigmas(family, high)[:2].mean().item() if low is not None else 0.5
    node = part("nodes.sample").Wan22MoEKSampler.PREPARE_CLASS_CLONE(None)
    output = node.execute(
        high,
        positive,
        negative,
        latent,
        SEED,
        STEPS,
        cfg_high=family.cfg,
        cfg_low=family.cfg,
        boundary=boundary,
        shift=family.shift,
        solver="euler",
        schedule="simple",
        denoise=1.0,
        low_noise=low,
    )
    return output.result[0]["samples"]


def native(family: Family, model, positive, negative, latent) -> torch.Tensor:
    """The same of the native KSampler."""
    run = (SEED, STEPS, family.cfg, "euler", "simple", positive, negative, latent)
    return comfy_nodes.common_ksampler(shifted(family, model), *run)[0]["samples"]


def shifted(family: Family, model):
    """The MODEL as ComfyUI's own node gives it that shift."""
    own = model.model.model_config.sampling_settings["shift"]
    return model if family.shift == own else advanced.ModelSamplingSD3().patch(model, family.shift)[0]


def sigmas(family: Family, model) -> torch.Tensor:
    sampling = shifted(family, model).get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", STEPS)


def handed_over(family: Family, one: tuple, two: tuple) -> torch.Tensor:
    """Two native runs of Euler, which remembers nothing: the second goes on with the very x of the first."""
    kept = []

    def first(model, x, *rest, **options):
        kept.append(comfy.k_diffusion.sampling.sample_euler(model, x, *rest, **options))
        return kept[0]

    def second(model, x, *rest, **options):
        return comfy.k_diffusion.sampling.sample_euler(model, kept[0], *rest, **options)

    levels = sigmas(family, one[0])
    for (model, positive, negative, latent), sampler, steps in ((one, first, levels[:2]), (two, second, levels[1:])):
        guider = comfy.samplers.CFGGuider(shifted(family, model))
        guider.set_conds(positive, negative)
        guider.set_cfg(family.cfg)
        start = latent["samples"]
        drawn = comfy.sample.prepare_noise(start, SEED)
        sampler = comfy.samplers.KSAMPLER(sampler)
        out = guider.sample(drawn, start, sampler, steps, denoise_mask=latent.get("noise_mask"), seed=SEED)
    return out


def ids(family: Family) -> list[str]:
    return sorted({node.GET_SCHEMA().node_id for node, _ in family.given})


def condition(node, model, connected: dict) -> tuple:
    """(MODEL, positive, negative, LATENT) after a conditioning node, by the names and types of its own schema."""
    channels = model.model.latent_format.latent_channels
    if node is None:
        return model, *texts(4096), {"samples": noise(1, channels, 3, SIDE // 8, SIDE // 8)}
    known = {"model": model, "vae": VAES[channels], "positive": texts(4096)[0], "negative": texts(4096)[1], **SIZE}
    schema = node.GET_SCHEMA()
    wanted = [entry.id for entry in schema.inputs]
    defaults = {entry.id: entry.default for entry in schema.inputs if getattr(entry, "default", None) is not None}
    inputs = {name: value for name, value in (defaults | known | connected).items() if name in wanted}
    made: dict[str, list] = {}
    for output, value in zip(schema.outputs, node.execute(**inputs).result, strict=True):
        made.setdefault(output.io_type, []).append(value)
    return made.get("MODEL", [model])[0], *made.get("CONDITIONING", texts(4096))[:2], made["LATENT"][0]
