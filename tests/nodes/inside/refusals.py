"""What the nodes say to parts of other models, and to literals where parts belong."""

import sys

import comfy.clip_vision
import comfy.model_base
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import comfy_extras.nodes_audio as audio
import comfy_extras.nodes_model_advanced as sampling
import torch
from families import FAMILIES, load
from host import pair, part, texts

import nodes as comfy_nodes


def said(call, *arguments, **inputs) -> str:
    """The error that a call ends with, and its class where it is none of ours."""
    try:
        call(*arguments, **inputs)
    except part("wan_core.errors").WanError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def sampled(high, low=None, conds=None, latent=None, grid=("euler", "simple")) -> str:
    node = part("nodes.sample").Wan22MoEKSampler.PREPARE_CLASS_CLONE(None)
    run = (1, 2, 1.0, 1.0, 0.9, 5.0, *grid, 1.0)
    latent = latent or {"samples": torch.zeros(1, 16, 3, 4, 6)}
    return said(node.execute, high, *(conds or texts()), latent, *run, low_noise=low)


def conditions_that_our_models_ignore(tmp: str) -> dict[str, dict[str, str]]:
    """Family of ours → key of a condition → what the sampler says to it."""
    vision, video, mask = comfy.clip_vision.Output(), torch.zeros(1, 16, 3, 4, 6), torch.ones(1, 64, 3, 4, 6)
    vision.penultimate_hidden_states = torch.zeros(1, 257, 1280)
    found: dict[str, dict[str, str]] = {}
    for family in ("t2v-a14b", "i2v-a14b", "vace-a14b"):
        (model, _), _ = pair(family)
        needed = {"concat_latent_image": video} if family == "i2v-a14b" else {}
        found[family] = {}
        for key in part("nodes.host.conditions").CONDITIONS:
            value = {key: vision if key.startswith("clip") else video}
            if key == "vace_frames":
                value = {"vace_frames": [video.repeat(1, 2, 1, 1, 1)], "vace_mask": [mask], "vace_strength": [1.0]}
            elif key.endswith("_latents"):
                value = {key: [video]}
            conds = [[[text, {**needed, **value}]] for ((text, _),) in texts()]
            found[family][key] = sampled(model, conds=conds)
    return found


def parts_of_other_models(tmp: str) -> dict[str, str]:
    """MODELs, VAEs and latents that are not Wan's, and experts of two families."""
    (high, _), _ = pair()
    image, humo = (load(FAMILIES[name], 0) for name in ("I2V-A14B", "HuMo 17B"))
    start = [[[text, {"concat_latent_image": torch.zeros(1, 16, 3, 4, 6)}]] for ((text, _),) in texts(4096)]
    vae = part("nodes.decode")
    images, clip = torch.zeros(5, 32, 32, 3), {"samples": torch.zeros(1, 16, 2, 4, 4)}
    sound = audio.EmptyLatentAudio.execute(1.0, 1).result[0]
    taesd = comfy.sd.VAE(sd=comfy.taesd.taesd.TAESD().state_dict())
    return {
        "Flux MODEL": sampled(flux()),
        "Flux MODEL, low": sampled(high, flux()),
        "Flux MODEL, LoRA": said(part("nodes.lora").Wan22LoraPair.execute, flux()),
        "experts of two families": sampled(image, humo, start),
        "official grid for FlowRVS": sampled(
            load(FAMILIES["FlowRVS"], 0), conds=texts(4096), grid=("euler", "official")
        ),
        "official solver for FlowRVS": sampled(
            load(FAMILIES["FlowRVS"], 0), conds=texts(4096), grid=("official unipc", "simple")
        ),
        "audio latent": sampled(high, latent=sound),
        "image latent": sampled(high, latent={"samples": torch.zeros(1, 4, 8, 8)}),
        "image VAE encodes": said(vae.Wan22VAEEncode.PREPARE_CLASS_CLONE(None).execute, images, taesd, 0, 64),
        "image VAE decodes": said(vae.Wan22VAEDecode.execute, clip, taesd, 0, 64),
        "image VAE in a condition": said(
            part("nodes.conditioning").Wan22I2VConditioning.execute, *texts(), taesd, 32, 32, 5, images
        ),
    }


def conditions_of_another_size(tmp: str) -> dict[str, str]:
    """What the sampler says to latents of another VAE, or of the node for another model."""
    ours = {name: pair(name)[0][0] for name in ("t2v-a14b", "i2v-a14b", "vace-a14b")}
    native = {name: load(FAMILIES[name], 0) for name in ("T2V", "I2V-A14B", "Fun-Control A14B")}
    one, two, other = (torch.zeros(1, channels, 3, 4, 6) for channels in (16, 32, 48))
    mask = {"vace_mask": [torch.ones(1, 64, 3, 4, 6)], "vace_strength": [1.0]}
    given = {
        "image of the other VAE, ours": (ours["i2v-a14b"], {"concat_latent_image": other}),
        "image of the other VAE, native": (native["I2V-A14B"], {"concat_latent_image": other}),
        "Bernini-R of the other VAE, ours": (ours["t2v-a14b"], {"context_latents": [one, other]}),
        "Bernini-R of the other VAE, native": (native["T2V"], {"context_latents": [one, other]}),
        "Phantom of the other VAE": (ours["t2v-a14b"], {"time_dim_concat": other}),
        "VACE of the other VAE": (ours["vace-a14b"], {"vace_frames": [other.repeat(1, 2, 1, 1, 1)]} | mask),
        "control for image-to-video": (ours["i2v-a14b"], {"concat_latent_image": two}),
        "image for Fun-Control": (native["Fun-Control A14B"], {"concat_latent_image": one}),
        "reference of the other VAE": (native["Fun-Control A14B"], {"reference_latents": [other]}),
    }
    found = {}
    for what, (model, condition) in given.items():
        conds = [[[text, dict(condition)]] for ((text, _),) in texts(64 if model in ours.values() else 4096)]
        found[what] = sampled(model, conds=conds)
    conds = [[[text, {"concat_latent_image": other}]] for ((text, _),) in texts()]
    latent, i2v = {"samples": torch.zeros(1, 16, 3, 4, 6)}, ours["i2v-a14b"]
    native_sampler = comfy_nodes.common_ksampler
    found["ours in the native sampler"] = said(native_sampler, i2v, 1, 2, 1.0, "euler", "simple", *conds, latent)
    return found


def a_shift_of_nothing(tmp: str) -> str:
    """The shift of the run left to a MODEL that has none."""
    (high, _), _ = pair()
    model = sampling.ModelSamplingSD3().patch(high, 0.0)[0]
    return said(part("nodes.host.sampling").make_sigmas, model, 4, 0.0, "official unipc", "official", 1.0)


def flux():
    """A tiny MODEL of another family with as many latent channels."""
    config = comfy.supported_models.Flux(
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "vec_in_dim": 8,
            "context_in_dim": 8,
            "hidden_size": 32,
            "mlp_ratio": 2.0,
            "num_heads": 1,
            "depth": 1,
            "depth_single_blocks": 1,
            "axes_dim": [8, 12, 12],
            "theta": 10000,
            "qkv_bias": True,
            "guidance_embed": False,
            "txt_ids_dims": [],
        }
    )
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(config.get_model({}), cpu, cpu)


def without_ftfy(tmp: str) -> str:
    """The prompt node, where ftfy is not installed."""
    clip = part("nodes.host.text").load_clip
    kept, sys.modules["ftfy"] = sys.modules.get("ftfy"), None
    try:
        return said(part("nodes.text").Wan22TextEncode.execute, clip, "a cat", "")
    finally:
        del sys.modules["ftfy"]
        if kept is not None:
            sys.modules["ftfy"] = kept
