"""Every native Wan family: tiny MODELs of ComfyUI's own classes, conditioned by its own nodes, in our sampler."""

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.k_diffusion.sampling
import comfy.model_patcher
import comfy.ops
import comfy.samplers
import comfy.sd
import comfy.supported_models
import comfy_extras.nodes_ar_video as ar
import comfy_extras.nodes_bernini as bernini
import comfy_extras.nodes_camera_trajectory as camera
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_model_patch as patches
import comfy_extras.nodes_scail as scail
import comfy_extras.nodes_wan as wan
import comfy_extras.nodes_wandancer as dancer
import comfy_extras.nodes_wanmove as move
import torch
from host import difference, part, texts
from places import MODELS
from safetensors.torch import save_file

import nodes as comfy_nodes

SIDE, FRAMES, STEPS, SEED = 64, 9, 3, 5
SIZE = {"width": SIDE, "height": SIDE, "length": FRAMES, "batch_size": 1}
TINY = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2}


@dataclass(frozen=True)
class Family:
    """One row of the table in the docs."""

    native: str  # the class of comfy.supported_models that a file of it is detected as
    given: tuple[tuple[Any, Callable[[], dict]], ...] = ()  # (conditioning node, what is connected to it), each a run
    sizes: dict = field(default_factory=dict)  # what the class is constructed with, besides TINY
    shift: float = 8.0
    cfg: float = 3.0
    told: dict | None = None  # in the header of a file, where its tensors do not tell the family
    pair: bool = True


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def images(count: int = 1, side: int = SIDE) -> torch.Tensor:
    return noise(count, side, side, 3).sigmoid()


def vision() -> comfy.clip_vision.Output:
    output = comfy.clip_vision.Output()
    output.penultimate_hidden_states = noise(1, 257, 1280)
    return output


def heard(layers: int, width: int, **more) -> dict:
    """What an audio encoder gives: a second of sound."""
    return {"encoded_audio_all_layers": [noise(1, 50, width) + n for n in range(layers)], **more}


def colours(count: int) -> torch.Tensor:
    return images(count).round()


def nothing() -> dict:
    return {}


def start() -> dict:
    return {"start_image": images()}


def start_and_vision() -> dict:
    return {"start_image": images(), "clip_vision_output": vision()}


def vision_alone() -> dict:
    return {"clip_vision_output": vision()}


def ends() -> dict:
    return {"start_image": images(), "end_image": images().flip(1)}


def ends_and_vision() -> dict:
    return {**ends(), "clip_vision_start_image": vision(), "clip_vision_end_image": vision()}


def trajectory() -> dict:
    return {"camera_conditions": camera.WanCameraEmbedding.execute("Pan Up", SIDE, SIDE, FRAMES).result[0]}


def scail_2() -> dict:
    return {
        "reference_image": images(2),
        "reference_image_mask": colours(2),
        "pose_video": images(FRAMES),
        "pose_video_mask": colours(FRAMES),
        "clip_vision_output": vision(),
        "previous_frames": images(5),
    }


def tracks() -> str:
    return str([[{"x": 8 + n, "y": 20 + n} for n in range(121)]])


def music() -> dict:
    return {"audio_feature": noise(1, 40, 35), "fps": 30.0, "audio_inject_scale": 1.0}


def speech() -> dict:
    """InfiniteTalk's node; its patch has 40 heads, whatever its width."""
    patch = patches.MultiTalkModelPatch(in_dim=640, num_layers=2, operations=comfy.ops.manual_cast)
    return {
        **start_and_vision(),
        "mode": {"mode": "single_speaker"},
        "model_patch": as_patcher(patch),
        "audio_encoder_output_1": heard(13, 768),
        "motion_frame_count": 5,
    }


VAES = {
    channels: part("nodes.host.vae").load_vae(str(Path(MODELS) / "vae" / name))
    for channels, name in ((16, "i2v-a14b/wan_2.1_vae.safetensors"), (48, "ti2v-5b/wan_2.2_vae.safetensors"))
}
CLIP = {"model_type": "i2v", "in_dim": 36}
FAMILIES = {
    "T2V": Family("WAN21_T2V", shift=12.0),
    "I2V-A14B": Family(
        "WAN21_T2V", ((wan.WanImageToVideo, start), (wan.WanFirstLastFrameToVideo, ends)), {"in_dim": 36}, 5.0
    ),
    "TI2V-5B": Family(
        "WAN22_T2V",
        ((wan.Wan22ImageToVideoLatent, nothing), (wan.Wan22ImageToVideoLatent, start)),
        {"in_dim": 48, "out_dim": 48},
    ),
    "Wan 2.1 I2V": Family(
        "WAN21_I2V", ((wan.WanImageToVideo, start_and_vision), (wan.WanImageToVideo, vision_alone)), CLIP, 3.0
    ),
    "Wan 2.1 FLF2V": Family(
        "WAN21_I2V", ((wan.WanFirstLastFrameToVideo, ends_and_vision),), CLIP | {"flf_pos_embed_token_number": 514}
    ),
    "VACE": Family(
        "WAN21_Vace",
        (
            (wan.WanVaceToVideo, lambda: {"control_video": images(FRAMES), "reference_image": images()}),
            (wan.WanVaceToVideo, nothing),
        ),
        {"model_type": "vace", "vace_layers": 1, "vace_in_dim": 96},
    ),
    "Fun-Control A14B": Family(
        "WAN21_T2V",
        (
            (wan.Wan22FunControlToVideo, lambda: {"control_video": images(FRAMES), "ref_image": images()}),
            (wan.Wan22FunControlToVideo, lambda: {"control_video": images(FRAMES)}),
        ),
        {"in_dim": 52, "in_dim_ref_conv": 16},
        5.0,
    ),
    "Fun-Control 5B": Family(
        "WAN22_T2V",
        ((wan.Wan22FunControlToVideo, lambda: {"control_video": images(FRAMES), "ref_image": images()}),),
        {"in_dim": 148, "out_dim": 48, "in_dim_ref_conv": 48},
        5.0,
    ),
    "Fun-Control 2.1": Family(
        "WAN21_FunControl2V",
        ((wan.WanFunControlToVideo, lambda: {**start_and_vision(), "control_video": images(FRAMES)}),),
        CLIP | {"in_dim": 48},
    ),
    "Fun-InP A14B": Family("WAN21_T2V", ((wan.WanFunInpaintToVideo, ends),), {"in_dim": 36}, 5.0),
    "Fun-InP 5B": Family("WAN22_T2V", ((wan.WanFunInpaintToVideo, ends),), {"in_dim": 100, "out_dim": 48}, 5.0),
    "Fun-InP 2.1": Family(
        "WAN21_I2V", ((wan.WanFunInpaintToVideo, lambda: {**ends(), "clip_vision_output": vision()}),), CLIP
    ),
    "Fun-Camera A14B": Family(
        "WAN22_Camera",
        (
            (wan.WanCameraImageToVideo, lambda: {**start(), **trajectory()}),
            (wan.WanCameraImageToVideo, trajectory),
        ),
        {"model_type": "camera_2.2", "in_dim": 36},
        5.0,
    ),
    "Fun-Camera 2.1": Family(
        "WAN21_Camera",
        ((wan.WanCameraImageToVideo, lambda: {**start_and_vision(), **trajectory()}),),
        {"model_type": "camera", "in_dim": 32},
    ),
    "Bernini-R": Family(
        "WAN21_T2V",
        (
            (
                bernini.BerniniConditioning,
                lambda: {
                    "source_video": images(FRAMES),
                    "reference_video": images(5, 48),
                    "reference_images": {"reference_image_0": images(2, 32)},
                },
            ),
        ),
        shift=3.0,
    ),
    "Phantom": Family("WAN21_T2V", ((wan.WanPhantomSubjectToVideo, lambda: {"images": images(2)}),), shift=3.0),
    "ATI": Family("WAN21_I2V", ((wan.WanTrackToVideo, lambda: {**start_and_vision(), "tracks": tracks()}),), CLIP, 5.0),
    "Wan-Move": Family(
        "WAN21_I2V",
        (
            (
                move.WanMoveTrackToVideo,
                lambda: {**start_and_vision(), "tracks": move.WanMoveTracksFromCoords.execute(tracks()).result[0]},
            ),
        ),
        CLIP,
        5.0,
    ),
    "InfiniteTalk": Family(
        "WAN21_I2V",
        (
            (wan.WanInfiniteTalkToVideo, speech),
            (wan.WanInfiniteTalkToVideo, lambda: {**speech(), "previous_frames": images(FRAMES)}),
        ),
        CLIP | {"dim": 640, "num_heads": 5},
        cfg=1.0,
    ),
    "Animate 2": Family(
        "WAN_Animate2",
        (
            (
                wan.WanAnimate2ToVideo,
                lambda: {"pose_video": images(FRAMES), "reference_image": images(), "clip_vision_output": vision()},
            ),
            (
                wan.WanAnimate2ToVideo,
                lambda: {"pose_video": images(FRAMES), "pose_start_percent": 0.2, "pose_end_percent": 0.4},
            ),
        ),
        {"model_type": "animate2", "in_dim": 36},
        5.0,
        told={"model_type": "animate2"},
    ),
    "Animate": Family(
        "WAN22_Animate",
        (
            (
                wan.WanAnimateToVideo,
                lambda: {
                    "pose_video": images(FRAMES),
                    "face_video": images(),
                    "reference_image": images(),
                    "clip_vision_output": vision(),
                },
            ),
        ),
        {"model_type": "animate", "in_dim": 36, "num_layers": 5},
        5.0,
        cfg=1.0,
        pair=False,  # its face encoder takes 512x512 pixels, however small the rest is
    ),
    "SCAIL": Family(
        "WAN21_SCAIL",
        (
            (scail.WanSCAILToVideo, lambda: {"reference_image": images(), "pose_video": images(FRAMES)}),
            (
                scail.WanSCAILToVideo,
                lambda: {**vision_alone(), "pose_video": images(FRAMES), "pose_end": 0.4},
            ),
        ),
        {"model_type": "scail", "in_dim": 20},
        5.0,
    ),
    "SCAIL-2": Family("WAN21_SCAIL2", ((scail.WanSCAILToVideo, scail_2),), {"model_type": "scail2", "in_dim": 20}, 5.0),
    "S2V": Family(
        "WAN22_S2V",
        (
            (
                wan.WanSoundImageToVideo,
                lambda: {
                    "audio_encoder_output": heard(25, 1024),
                    "ref_image": images(),
                    "control_video": images(FRAMES),
                    "ref_motion": images(5),
                },
            ),
            (
                wan.WanSoundImageToVideoExtend,
                lambda: {
                    "audio_encoder_output": heard(25, 1024),
                    "video_latent": {"samples": noise(1, 16, 3, SIDE // 8, SIDE // 8)},
                },
            ),
        ),
        {"model_type": "s2v"},
        3.0,
    ),
    "HuMo 17B": Family(
        "WAN21_HuMo",
        (
            (
                wan.WanHuMoImageToVideo,
                lambda: {"audio_encoder_output": heard(33, 1280, audio_samples=16000), "ref_image": images()},
            ),
            (wan.WanHuMoImageToVideo, lambda: {"audio_encoder_output": heard(33, 1280, audio_samples=16000)}),
        ),
        {"model_type": "humo", "in_dim": 36},
    ),
    "HuMo 1.7B": Family(
        "WAN21_HuMo",
        (
            (
                wan.WanHuMoImageToVideo,
                lambda: {"audio_encoder_output": heard(33, 1280, audio_samples=16000), "ref_image": images()},
            ),
        ),
        {"model_type": "humo"},
    ),
    "WanDancer": Family(
        "WAN22_WanDancer",
        (
            (dancer.WanDancerVideo, lambda: {**start_and_vision(), "audio_encoder_output": music()}),
            (
                dancer.WanDancerVideo,
                lambda: {"clip_vision_output": vision(), "clip_vision_output_ref": vision()},
            ),
            (dancer.WanDancerVideo, lambda: {"audio_encoder_output": music() | {"fps": 15.0}}),
        ),
        {"model_type": "wandancer", "in_dim": 36},
        5.0,
    ),
    "FlowRVS": Family("WAN21_FlowRVS", sizes={"model_type": "flow_rvs"}, told={"model_type": "flow_rvs"}, pair=False),
}


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module, whose parameters ComfyUI has left as they lay in memory."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        scale = max(1, parameter[0].numel()) ** -0.5 if parameter.ndim > 1 else 0.1
        value = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data = value + ("norm" in name and name.endswith("weight"))
    return module


def as_patcher(module: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    return comfy.model_patcher.ModelPatcher(randomised(module), torch.device("cpu"), torch.device("cpu"))


def header(family: Family) -> dict[str, str] | None:
    return None if family.told is None else {"config": json.dumps({"transformer": family.told})}


def load(family: Family, seed: int):
    """A MODEL of the family, from tensors that ComfyUI tells it by."""
    config = getattr(comfy.supported_models, family.native)({"model_type": "t2v", **TINY, **family.sizes})
    config.set_inference_dtype(torch.float32, None)
    state = randomised(config.get_model({}).diffusion_model, seed).state_dict()
    model = comfy.sd.load_diffusion_model_state_dict(state, metadata=header(family))
    assert type(model.model.model_config).__name__ == family.native, type(model.model.model_config)
    return model


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
    results = list(zip((output.io_type for output in schema.outputs), node.execute(**inputs).result, strict=True))
    of = {
        kind: [result for io_type, result in results if io_type == kind] for kind in ("MODEL", "CONDITIONING", "LATENT")
    }
    conds = of["CONDITIONING"][:2] or texts(4096)
    return (*(of["MODEL"] or [model]), *conds, of["LATENT"][0])


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
    given = [(node, connected()) for node, connected in family.given] or [(None, {})]
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
