"""Models with contexts, a reference or an image branch: ours beside native ones with the same weights."""

import dataclasses
from pathlib import Path

import comfy.clip_vision
import comfy.ldm.wan.uni3c
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import comfy_extras.nodes_model_patch as patches
import torch
from formats import quantize
from host import comfy_nodes, part, run, texts
from places import STORED
from safetensors.torch import save_file

FRAMES, HEIGHT, WIDTH, STEPS, SHIFT = 3, 4, 6, 6, 8.0
WORDS = ((0, "high"), (1, "low"))
BESIDE = ("context_latents", "reference_latents", "clip_vision_output")
SIZES = {
    "Bernini-R": {},
    "Fun-Control": {"in_channels": 52, "reference_channels": 16},
    "Fun-Control 5B": {"in_channels": 148, "out_channels": 48, "reference_channels": 48},
    "Fun-InP 5B": {"in_channels": 100, "out_channels": 48},
    "I2V 2.1": {"in_channels": 36, "image_dim": 1280},
    "FLF2V 2.1": {"in_channels": 36, "image_dim": 1280, "image_positions": 514},
    "Fun-Control 2.1": {"in_channels": 48, "image_dim": 1280},
    "Fun-Control 2.1 with a reference": {"in_channels": 48, "image_dim": 1280, "reference_channels": 16},
}


def latent(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def vision(tokens: int, batch: int = 1) -> comfy.clip_vision.Output:
    output = comfy.clip_vision.Output()
    output.penultimate_hidden_states = latent(batch, tokens, 1280)
    return output


def concat(channels: int, **more) -> dict:
    """An image or a control, and a mask with the first frame known."""
    mask = torch.ones(1, 4, FRAMES, HEIGHT, WIDTH)
    mask[:, :, :1] = 0
    return {"concat_latent_image": latent(1, channels, FRAMES, HEIGHT, WIDTH), "concat_mask": mask, **more}


def control(z: int, reference: bool, **more) -> dict:
    """As Wan22FunControlToVideo: control, mask, start image."""
    given = concat(2 * z, concat_mask_index=z, **more)
    return given | ({"reference_latents": [latent(1, z, 1, HEIGHT, WIDTH)]} if reference else {})


# What is measured: the model, and what the conditioning holds besides a text.
CASES = {
    "Bernini-R with two contexts": (
        "Bernini-R",
        lambda: {"context_latents": [latent(1, 16, 3, 6, 4), latent(1, 16, 1, 3, 8)]},  # the last one is padded
    ),
    "Bernini-R without one": ("Bernini-R", dict),
    "Fun-Control with a reference": ("Fun-Control", lambda: control(16, True)),
    "Fun-Control without one": ("Fun-Control", lambda: control(16, False)),
    "Fun-Control with nothing": ("Fun-Control", dict),
    "Fun-Control 5B with a reference": ("Fun-Control 5B", lambda: control(48, True)),
    "Fun-Control 5B without one": ("Fun-Control 5B", lambda: control(48, False)),
    "Fun-InP 5B": ("Fun-InP 5B", lambda: concat(48)),
    "I2V 2.1": ("I2V 2.1", lambda: concat(16, clip_vision_output=vision(257))),
    "I2V 2.1 without CLIP": ("I2V 2.1", lambda: concat(16)),
    "I2V 2.1 with two images": ("I2V 2.1", lambda: concat(16, clip_vision_output=vision(514))),
    "FLF2V 2.1": ("FLF2V 2.1", lambda: concat(16, clip_vision_output=vision(514))),
    "FLF2V 2.1 with one image": ("FLF2V 2.1", lambda: concat(16, clip_vision_output=vision(257))),
    "Fun-Control 2.1": ("Fun-Control 2.1", lambda: control(16, False, clip_vision_output=vision(257))),
    "Fun-Control 2.1 with a reference": (
        "Fun-Control 2.1 with a reference",
        lambda: control(16, True, clip_vision_output=vision(257)),
    ),
}


def expert(model: str, file: str, seed: int) -> str:
    """A file of a tiny transformer of this kind, with all parameters random."""
    plain = dataclasses.replace(part("wan_core.testing").tiny_preset("t2v-a14b").dit, text_dim=4096)
    torch.manual_seed(seed)
    made = part("wan_core.dit").WanDiT(dataclasses.replace(plain, **SIZES[model]))
    for name, parameter in made.named_parameters():
        if not parameter.any() or "norm" in name or name.startswith("img_emb"):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_file(made.state_dict(), file)
    return file


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def conditioned(given: dict) -> list:
    return [[[c[0][0], dict(given)]] for c in texts(4096)]


def in_native_sampler(model, conds: list, channels: int, steps: int, batch: int = 1) -> torch.Tensor:
    start = {"samples": torch.zeros(batch, channels, FRAMES, HEIGHT, WIDTH)}
    return comfy_nodes.common_ksampler(model, 5, steps, 3.0, "euler", "simple", *conds, start)[0]["samples"]


def branches(tmp) -> dict:
    """Case → relative differences to native: a step, a run, a run of a batch of two, a pair; and what the tokens beside
    the video change of the run.
    """
    models = {}
    for number, name in enumerate(SIZES):
        files = [expert(name, str(Path(tmp) / f"{name} {word}.safetensors"), 2 * number + n) for n, word in WORDS]
        models[name] = part("nodes.host.loading").load_pair(*files), [comfy.sd.load_diffusion_model(f) for f in files]
    found = {}
    for case, (name, given) in CASES.items():
        (high, low), native = models[name]
        channels, conds = high.model.latent_format.latent_channels, conditioned(given())
        results = {
            what: [in_native_sampler(model, conds, channels, steps, batch) for model in (high, native[0])]
            for what, steps, batch in (("step", 1, 1), ("run", STEPS, 1), ("batch", STEPS, 2))
        }
        numbers = dict(solver="euler", schedule="simple", steps=STEPS, shift=SHIFT, conds=conds)
        numbers["shape"] = (1, channels, FRAMES, HEIGHT, WIDTH)
        results["pair"] = [run(high, low, **numbers), run(*native, **numbers)]
        found[case] = {what: relative(*pair) for what, pair in results.items()}
        without = {key: value for key, value in given().items() if key not in BESIDE}
        found[case]["change"] = relative(
            in_native_sampler(high, conditioned(without), channels, STEPS), results["run"][0]
        )
    return found


def branches_as_stored(tmp) -> dict:
    """Layout → relative difference of a run of our MODEL to one with the same weights dequantized, or unprefixed."""
    load, found = part("nodes.host.loading").load_expert, {}
    for name, case in (("FLF2V 2.1", "FLF2V 2.1"), ("Fun-Control", "Fun-Control with a reference")):
        file, conds = expert(name, f"{tmp}/plain.safetensors", 7), conditioned(CASES[case][1]())
        state = comfy.utils.load_torch_file(file)
        plain = in_native_sampler(load(file), conds, 16, STEPS)
        save_file({f"model.diffusion_model.{key}": t for key, t in state.items()}, f"{tmp}/prefixed.safetensors")
        prefixed = in_native_sampler(load(f"{tmp}/prefixed.safetensors"), conds, 16, STEPS)
        found[f"{name} prefixed"] = relative(prefixed, plain)
        for layout in ("scaled e4m3", "metadata in the header"):
            quantized, dequantized, metadata = quantize(state, layout)
            save_file({key: t.contiguous() for key, t in quantized.items()}, f"{tmp}/q.safetensors", metadata)
            save_file(dequantized, f"{tmp}/d.safetensors")
            made = [in_native_sampler(load(f"{tmp}/{x}.safetensors"), conds, 16, STEPS) for x in "qd"]
            found[f"{name} {layout}"] = relative(*made)
    conds = [[[c[0][0], CASES["FLF2V 2.1"][1]()]] for c in texts(64)]
    made = [in_native_sampler(load(f"{STORED}/flf2v.{x}"), conds, 16, STEPS) for x in ("gguf", "safetensors")]
    return found | {"FLF2V 2.1 gguf": relative(*made)}


def refused_conditions(tmp) -> dict:
    """What models of ours take of the conditioning; what is said of the rest, by which door; ComfyUI's estimates."""
    conditions, error = part("nodes.host.conditions"), part("wan_core.errors").InputError
    config = part("wan_core.testing").tiny_preset("t2v-a14b").dit
    configs = {name: dataclasses.replace(config, **sizes) for name, sizes in SIZES.items()}
    configs |= {
        "VACE": part("wan_core.testing").tiny_preset("vace-a14b").dit,
        "I2V-A14B": dataclasses.replace(config, in_channels=36),
        "TI2V-5B": dataclasses.replace(config, in_channels=48, out_channels=48),
    }
    taken = {
        name: sorted(key for key, condition in conditions.CONDITIONS.items() if condition.taken(config))
        for name, config in configs.items()
    }
    file = expert("Bernini-R", f"{tmp}/t2v.safetensors", 0)
    ours, native = part("nodes.host.loading").load_expert(file), comfy.sd.load_diffusion_model(file)
    x, camera = torch.zeros(1, 16, 1, HEIGHT, WIDTH), {"camera_conditions": torch.zeros(1, 24, 1, HEIGHT, WIDTH)}
    text, t = torch.zeros(1, 3, 4096), torch.tensor([500.0])
    doors = {
        "a sampler": lambda: in_native_sampler(ours, conditioned(camera), 16, 1),
        "the transformer": lambda: ours.model.diffusion_model(x, t, text, **camera),
        "a ControlNet": lambda: ours.model.extra_conds(noise=x, device="cpu", control=object()),
        "a reference": lambda: ours.model.diffusion_model(x, t, text, reference_latent=x[:, :, 0]),
    }

    def answer(call) -> str:
        try:
            return repr(call())
        except error as refusal:
            return str(refusal)

    contexts = [torch.zeros(1, 16, 3, 40, 60), torch.zeros(1, 16, 1, 80, 60)]
    shapes = {key: [shape] for key, shape in ours.model.extra_conds_shapes(context_latents=contexts).items()}
    shape = [2, 16, 3, 40, 60]
    memory = [m.memory_required(shape) for m in (native.model, ours.model)]
    vace = (
        part("nodes.host.model").ExpertConfig(configs["VACE"]),
        comfy.supported_models.WAN21_Vace({"dim": config.dim}),
    )
    return {
        "taken": taken,
        "said": {door: answer(call) for door, call in doors.items()},
        "memory": [*memory, ours.model.memory_required(shape, cond_shapes=shapes)],
        "VACE": [each.memory_usage_factor for each in vace],
    }


def uni3c(tmp) -> dict:
    """Uni3C's patch on our MODEL and on the native one: their difference, and what the patch changes."""
    found = {}
    for case in ("Bernini-R with two contexts", "Fun-Control with a reference"):
        name, given = CASES[case]
        file, conds = expert(name, f"{tmp}/base.safetensors", 3), conditioned(given())
        models = part("nodes.host.loading").load_expert(file), comfy.sd.load_diffusion_model(file)
        patch = uni3c_patch(models[0].model.diffusion_model.config.dim)
        out = []
        for model in models:
            patched = patches.WanUni3CControlnetApply().apply_patch(
                model, patch, FixedVAE(), torch.zeros(9, 32, 48, 3), 1.0, 0.0, 1.0
            )[0]
            out.append(in_native_sampler(patched, conds, 16, STEPS))
        plain = in_native_sampler(models[0], conds, 16, STEPS)
        found[case] = [relative(*out), relative(out[0], plain)]
    return found


class FixedVAE:
    """What the patch asks of a VAE; every clip has the same latents."""

    def temporal_compression_decode(self):
        return 4

    def spacial_compression_encode(self):
        return 8

    def encode(self, frames):
        return latent(1, 16, (len(frames) + 3) // 4, frames.shape[1] // 8, frames.shape[2] // 8)


def uni3c_patch(dim: int):
    """A tiny control network for models of this width, with all parameters random."""
    torch.manual_seed(4)
    sizes = dict(
        conv_out_dim=dim, dim=128, ffn_dim=192, num_heads=1, num_layers=2, time_embed_dim=dim, out_proj_dim=dim
    )
    network = comfy.ldm.wan.uni3c.WanUni3CControlnet(**sizes, mid_channels=16, operations=comfy.ops.manual_cast)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.1
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(network, cpu, cpu)
