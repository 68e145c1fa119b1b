"""The library's pipelines of the Bernini-R, Fun and CLIP families against native nodes and native MODELs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import comfy.clip_vision
import comfy.ops
import comfy.sd
import comfy_extras.nodes_bernini as bernini
import comfy_extras.nodes_wan as wan
import torch
from host import difference, part, texts
from safetensors.torch import save_file

FRAMES, HEIGHT, WIDTH, STEPS, SEED = 9, 64, 96, 6, 5
NUMBERS = dict(num_frames=FRAMES, height=HEIGHT, width=WIDTH, num_inference_steps=STEPS, seed=SEED, solver="euler")


@dataclasses.dataclass(frozen=True)
class Case:
    """Attributes:
    inputs: of the library's call. native: (positive, negative, VAE, inputs, CLIP tokens) → conditionings and latent.
    """

    preset: str
    inputs: dict
    native: Callable


def clip(frames=FRAMES, height=HEIGHT, width=WIDTH, seed=3):
    """(T, H, W, 3) in [0, 1], smooth."""
    torch.manual_seed(seed)
    coarse = torch.rand(1, 3, 3, 5, 7)
    return torch.nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear")[0].movedim(0, -1)


def still(height=HEIGHT, width=WIDTH, seed=4):
    return clip(1, height, width, seed)


def ours_of(images):
    """What the library takes for ComfyUI's IMAGE: (3, T, H, W), and (3, H, W) of a single one."""
    frames = images.movedim(-1, 0) * 2 - 1
    return frames[:, 0] if len(images) == 1 else frames


def bernini_node(positive, negative, vae, given, tokens):
    references = {f"reference_image_{n}": image for n, image in enumerate(given.get("reference_images", ()))}
    return bernini.BerniniConditioning.execute(
        positive, negative, vae, WIDTH, HEIGHT, FRAMES, 1, source_video=given.get("video"), reference_images=references
    ).result


def fun_control_node(positive, negative, vae, given, tokens):
    reference = next(iter(given.get("reference_images", ())), None)
    values = wan.Wan22FunControlToVideo.execute(
        positive, negative, vae, WIDTH, HEIGHT, FRAMES, 1, reference, given.get("image"), given.get("video")
    ).result
    return with_first_frame(values, vae, given)


def fun_inp_node(positive, negative, vae, given, tokens):
    values = wan.WanFunInpaintToVideo.execute(
        positive, negative, vae, WIDTH, HEIGHT, FRAMES, 1, given.get("image"), given.get("last_image")
    ).result
    return with_first_frame(values, vae, given)


def with_first_frame(values, vae, given):
    """The conditionings, and for the 5B the latent that starts from the image."""
    if vae.latent_channels == 16 or "image" not in given:
        return values
    latent = wan.Wan22ImageToVideoLatent.execute(vae, WIDTH, HEIGHT, FRAMES, 1, given["image"]).result[0]
    return *values[:2], latent


def clip_node(positive, negative, vae, given, tokens):
    outputs = []
    for one in tokens.split(257, dim=1):
        outputs.append(comfy.clip_vision.Output())
        outputs[-1].penultimate_hidden_states = one
    if "last_image" not in given:
        return wan.WanImageToVideo.execute(
            positive, negative, vae, WIDTH, HEIGHT, FRAMES, 1, given["image"], outputs[0]
        ).result
    return wan.WanFirstLastFrameToVideo.execute(
        positive, negative, vae, WIDTH, HEIGHT, FRAMES, 1, given["image"], given["last_image"], *outputs
    ).result


CASES = {
    "Bernini-R, a video and images of other sizes": Case(
        "bernini-r-a14b",
        {"video": clip(12, 96, 120), "reference_images": [still(48, 80), still(900, 500, 6)]},
        bernini_node,
    ),
    "Bernini-R 1.3B, an image alone": Case("bernini-r-1.3b", {"reference_images": [still(32, 32)]}, bernini_node),
    "Fun-Control, a control and a reference": Case(
        "fun-control-a14b", {"video": clip(12, 90, 200), "reference_images": [still(80, 80)]}, fun_control_node
    ),
    "Fun-Control, a control and a start frame": Case(
        "fun-control-a14b", {"video": clip(), "image": still(seed=7)}, fun_control_node
    ),
    "Fun-Control, nothing": Case("fun-control-a14b", {}, fun_control_node),
    "Fun-Control 5B, a control and a reference": Case(
        "fun-control-5b", {"video": clip(), "reference_images": [still()]}, fun_control_node
    ),
    "Fun-Control 5B, a start frame": Case("fun-control-5b", {"image": still(80, 70)}, fun_control_node),
    "Fun-InP 5B, first and last frame": Case(
        "fun-inp-5b", {"image": still(), "last_image": still(seed=8)}, fun_inp_node
    ),
    "Wan2.1 I2V": Case("wan21-i2v-14b-720p", {"image": still()}, clip_node),
    "Wan2.1 FLF2V": Case("wan21-flf2v-14b", {"image": still(), "last_image": still(seed=8)}, clip_node),
}


def families_in_python(tmp):
    """Case → (difference of the latents, how much the condition changes them)."""
    found = {}
    for label, case in CASES.items():
        pipe, files, vae = models(Path(tmp), case.preset)
        given = {
            name: list(map(ours_of, value)) if isinstance(value, list) else ours_of(value)
            for name, value in case.inputs.items()
        }
        inputs = part("wan_core.pipeline.inputs").Inputs.resolve(
            pipe.preset, part("wan_core.pipeline").Options("", **NUMBERS, **given)
        )
        condition, conds = pipe.condition(inputs), texts(4096)
        text = [[c[0][0]] for c in conds]
        ours = pipe.denoise(inputs.request, *text, condition)
        theirs = native(inputs.request, files, case.native(*conds, vae, case.inputs, condition.image_embeds))
        blank = without(condition)
        change = difference(pipe.denoise(inputs.request, *text, blank), ours) if case.inputs else 1.0
        found[label] = (difference(ours, theirs), change)
    return found


def without(condition):
    """The condition with zeros in place of what was given."""
    zeros = {
        name: None if (value := getattr(condition, name)) is None else torch.zeros_like(value)
        for name in ("y", "image_embeds", "reference_latent")
    }
    return dataclasses.replace(condition, **zeros, context_latents=())


def native(request, files, values):
    """Latents of native MODELs in our sampler, which solves and schedules as the library does."""
    host, (positive, negative, latent) = part("nodes.host.sampling"), values
    loaded = [comfy.sd.load_diffusion_model(file) for file in files]
    high, low = loaded[0], loaded[1] if len(loaded) == 2 else None
    guidance = request.guidance, request.guidance if low is None else request.guidance_low
    guider = host.make_guider(high, low, positive, negative, *guidance, request.boundary or 0.5)
    sigmas = host.make_sigmas(high, STEPS, request.shift, "official euler", "official", 1.0)
    samples = host.sample(guider, host.make_sampler("official euler"), sigmas, latent, SEED)["samples"]
    return high.model.process_latent_in(samples)


def models(folder, name):
    """(the library's pipeline, files of its transformers, its VAE in ComfyUI) with random weights."""
    torch.manual_seed(9)
    preset = part("wan_core.testing").tiny_preset(name, text_dim=4096)
    encoder = None
    if preset.image_encoder is not None:  # the width is all that native ComfyUI takes of it
        encoder = part("wan_core.config").ImageEncoderConfig(1280, 64, 16, 1)
        sizes = {"image_dim": 1280, "image_positions": 514 if preset.dit.image_positions else 0}
        preset = dataclasses.replace(preset, dit=dataclasses.replace(preset.dit, **sizes), image_encoder=encoder)
        encoder = randomised(part("wan_core.vision").ImageEncoder(encoder))
    files, dits = [], []
    for n in range(2 if preset.two_experts else 1):
        torch.manual_seed(n)
        state = randomised(part("wan_core.dit").WanDiT(preset.dit)).state_dict()
        files.append(str(folder / f"{name}-{n}.safetensors"))
        save_file(state, files[-1])
        dits.append(part("wan_core.checkpoints").load_dit(files[-1]))
    file = str(folder / f"{name}-vae.safetensors")
    save_file(part("wan_core.vae").WanVAE(preset.vae).state_dict(), file)
    vae = part("wan_core.checkpoints").load_vae(file)
    pipe = part("wan_core").WanPipeline(
        dits[0], dits[1] if len(dits) == 2 else None, vae, None, None, preset, image_encoder=encoder
    )
    return pipe, files, part("nodes.host.vae").load_vae(file)


def randomised(module):
    """Weights that are no zeros and no constants, which would hide a difference."""
    for parameter in module.parameters():
        if not parameter.any() or parameter.std() == 0 or not torch.isfinite(parameter).all():
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


def vision_towers():
    """Hidden states of our encoder and of ComfyUI's for the same pixels."""
    torch.manual_seed(6)
    config = part("wan_core.config").ImageEncoderConfig(160, 96, 2, 3, 14, 28)
    ours = randomised(part("wan_core.vision").ImageEncoder(config))
    sizes = {
        "hidden_size": 160,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "num_channels": 3,
        "hidden_act": "gelu",
        "projection_dim": 8,
        "model_type": "clip_vision_model",
        "layer_norm_eps": 1e-5,
    }
    theirs = comfy.clip_vision.ClipVisionModel(sizes).model.float()
    state = {f"vision_model.{name}": t for name, t in ours.state_dict().items()}
    missing, unknown = theirs.load_state_dict(state, strict=False)
    assert not unknown and all("layers.3." in name or "post_" in name or "visual_" in name for name in missing), missing
    images = torch.rand(2, 3, 28, 28) * 2 - 1
    encoder = part("wan_core.vision.encoder")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (encoder.MEAN, encoder.STD))
    hidden = theirs.eval()(pixel_values=(images / 2 + 0.5 - mean) / std, intermediate_output=-2)[1]
    return difference(ours(images), hidden)
