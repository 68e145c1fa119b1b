"""The pack against the native Wan nodes and models."""

import dataclasses
from pathlib import Path

import comfy.patcher_extension
import comfy.sd
import comfy_extras.nodes_easycache as caches
import comfy_extras.nodes_wan as wan
import torch
from host import comfy_nodes, difference, pair, part, run, texts
from places import MODELS
from safetensors.torch import save_file


def wide_pair(family, folder):
    """Files of a tiny pair with the text width of the real models, which is the only one that native ComfyUI takes."""
    config = dataclasses.replace(part("wan_core.testing").tiny_preset(family).dit, text_dim=4096)
    files = []
    for word in ("high", "low"):
        torch.manual_seed(len(files))
        model = part("wan_core.dit").WanDiT(config)
        for parameter in model.parameters():
            if not parameter.any():  # a head of zeros would hide every difference
                torch.nn.init.normal_(parameter, std=0.1)
        state = model.state_dict()
        files.append(str(Path(folder) / f"{family}_{word}.safetensors"))
        save_file(state, files[-1])
    return files


def native_and_ours(tmp):
    """Same weights as a native MODEL and as ours, in the native sampler and in ours."""
    found = {}
    for family in ("t2v-a14b", "i2v-a14b", "vace-a14b"):
        files = wide_pair(family, tmp)
        high, low = part("nodes.host.loading").load_pair(*files)
        native_high, native_low = (comfy.sd.load_diffusion_model(file) for file in files)
        positive, negative = texts(4096)
        if family == "i2v-a14b":
            torch.manual_seed(2)
            extra = {"concat_latent_image": torch.randn(1, 16, 3, 4, 6), "concat_mask": torch.ones(1, 1, 3, 4, 6)}
            extra["concat_mask"][:, :, :1] = 0
        elif family == "vace-a14b":
            torch.manual_seed(2)
            extra = {
                "vace_frames": [torch.randn(1, 32, 3, 4, 6)],
                "vace_mask": [torch.rand(1, 64, 3, 4, 6)],
                "vace_strength": [0.7],
            }
        else:
            extra = {}
        conds = [[[c[0][0], dict(extra)]] for c in (positive, negative)]
        numbers = dict(solver="euler", schedule="simple", steps=4, shift=8.0, conds=conds)
        ours = run(high, low, **numbers)
        found[f"{family} native models in our sampler"] = difference(run(native_high, native_low, **numbers), ours)
        alone = run(high, None, **numbers, cfg=(3.0, 3.0))
        for label, model in (("our model", high), ("native model", native_high)):
            (out,) = comfy_nodes.common_ksampler(
                model, 5, 4, 3.0, "euler", "simple", *conds, {"samples": torch.zeros(1, 16, 3, 4, 6)}
            )
            found[f"{family} {label} in the native sampler"] = difference(out["samples"], alone)
    return found


def five_b_and_ours(tmp):
    """TI2V-5B with a first frame: the latent of our node and of the native one, both models, both samplers."""
    config = dataclasses.replace(part("wan_core.testing").tiny_preset("ti2v-5b").dit, text_dim=4096)
    torch.manual_seed(0)
    file = str(Path(tmp) / "5b.safetensors")
    save_file(part("wan_core.dit").WanDiT(config).state_dict(), file)
    ours, native = part("nodes.host.loading").load_expert(file), comfy.sd.load_diffusion_model(file)
    vae = part("nodes.host.vae").load_vae(str(Path(MODELS) / "vae" / "ti2v-5b" / "wan_2.2_vae.safetensors"))
    image, conds = picture(64, 64), texts(4096)
    mine = part("nodes.conditioning").Wan22TI2V.execute(vae, 64, 64, 9, image).result[0]
    theirs = wan.Wan22ImageToVideoLatent.execute(vae, 64, 64, 9, 1, image).result[0]
    found = {key: difference(mine[key], theirs[key]) for key in ("samples", "noise_mask")}
    results = []
    for model in (ours, native):
        results += [
            comfy_nodes.common_ksampler(model, 5, 4, 3.0, "euler", "simple", *conds, latent)[0]["samples"]
            for latent in (mine, theirs)
        ]
        host = part("nodes.host.sampling")
        guider = host.make_guider(model, None, *conds, 3.0, 3.0, 0.5)
        results.append(
            host.sample(
                guider, host.make_sampler("euler"), host.make_sigmas(model, 4, 8.0, "euler", "simple", 1.0), mine, 5
            )["samples"]
        )
    found["samplers and models"] = max(difference(results[0], other) for other in results[1:])
    return found


def picture(height, width):
    torch.manual_seed(4)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 5, 7), (height, width), mode="bilinear").movedim(1, -1)


def conditioning_nodes(tmp):
    """What the native conditioning nodes and ours put under the same keys."""
    vae = part("nodes.host.vae").load_vae(str(Path(MODELS) / "vae" / "i2v-a14b" / "wan_2.1_vae.safetensors"))
    ours, conds = part("nodes.conditioning"), texts(64)
    first, last = picture(32, 48), picture(40, 48).flip(1)
    video, mask = torch.cat((first, first.flip(2))), torch.rand(9, 32, 48).round()
    pairs = {
        "first frame": (
            ours.Wan22I2VConditioning.execute(*conds, vae, 48, 32, 9, first).result,
            wan.WanImageToVideo.execute(*conds, vae, 48, 32, 9, 1, start_image=first).result,
        ),
        "first and last frame": (
            ours.Wan22I2VConditioning.execute(*conds, vae, 48, 32, 9, first, last).result,
            wan.WanFirstLastFrameToVideo.execute(*conds, vae, 48, 32, 9, 1, start_image=first, end_image=last).result,
        ),
        "frames and mask": (
            ours.Wan22VCU.execute(*conds, vae, 48, 32, 9, video=video, mask=mask, strength=0.7).result,
            wan.WanVaceToVideo.execute(*conds, vae, 48, 32, 9, 1, 0.7, control_video=video, control_masks=mask).result,
        ),
    }
    found, full = {}, lambda m: m.expand(-1, 4, -1, -1, -1) if m.shape[1] == 1 else m
    for name, (mine, theirs) in pairs.items():
        for which in (0, 1):
            a, b = mine[which][0][1], theirs[which][0][1]
            assert set(a) == set(b), (set(a), set(b))
            for key in a:
                x, y = (v[0] if isinstance(v, list) else v for v in (a[key], b[key]))
                x, y = (full(v) if key == "concat_mask" else torch.as_tensor(v) for v in (x, y))
                found[f"{name} {key}"] = difference(x, y)
        found[f"{name} latent"] = difference(mine[2]["samples"], theirs[2]["samples"])
    return found


def patches(tmp):
    """Every patch point of the native model, on both experts: (difference to native, change that the patch makes)."""

    def replace_block(model):
        def block(args, extra):
            return {"img": extra["original_block"](args)["img"] * 1.5}

        model.set_model_patch_replace(block, "dit", "double_block", 0)

    def override(model):
        def attention(func, *args, **kwargs):
            return func(*args, **kwargs) * 1.2

        model.model_options["transformer_options"]["optimized_attention_override"] = attention

    def wrap(model):
        def wrapper(executor, x, *args, **kwargs):
            return executor(x, *args, **kwargs) * 1.05

        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "test", wrapper)

    points = {
        "block replacement": replace_block,
        "after a block": lambda m: m.set_model_patch(lambda a: {**a, "img": a["img"] * 0.9 + 0.01}, "double_block"),
        "after self-attention": lambda m: m.set_model_patch(lambda a: a["x"] * 1.3, "attn1_patch"),
        "after cross-attention": lambda m: m.set_model_patch(lambda a: a["x"] * 1.5, "attn2_patch"),
        "attention override": override,
        "rotary options": lambda m: m.model_options["transformer_options"].update(
            rope_options={"scale_t": 0.5, "shift_x": 3.0}
        ),
        "whole model": wrap,
        "after guidance": lambda m: m.set_model_sampler_post_cfg_function(lambda a: a["denoised"] * 0.95),
    }
    files, found = wide_pair("t2v-a14b", tmp), {}
    ours = part("nodes.host.loading").load_pair(*files)
    native = [comfy.sd.load_diffusion_model(file) for file in files]
    numbers = dict(solver="euler", schedule="simple", steps=4, shift=8.0, conds=texts(4096))
    plain = run(*ours, **numbers)
    for name, patch in points.items():
        out = []
        for models in (ours, native):
            clones = [model.clone() for model in models]
            for clone in clones:
                patch(clone)
            out.append(run(*clones, **numbers))
        found[name] = [difference(*out), difference(out[0], plain)]
    found["left alone"] = [difference(run(*ours, **numbers), plain), 1.0]
    return found


def step_caches():
    """Forward passes of each expert with and without a cache on both; and whether the MODELs are left as they were."""
    (high, low), _ = pair()
    found, numbers = {}, dict(solver="euler", schedule="simple", steps=20, shift=8.0, cfg=(1.0, 1.0))
    calls = {}

    def count(expert):
        return lambda *_: calls.__setitem__(expert, calls[expert] + 1)

    handles = [
        m.model.diffusion_model.blocks[0].register_forward_hook(count(expert))
        for expert, m in (("high", high), ("low", low))
    ]
    for name, node in (
        ("none", None),
        ("EasyCache", caches.EasyCacheNode),
        ("LazyCache", caches.LazyCacheNode),
        ("none again", None),
    ):
        calls.update(high=0, low=0)
        models = (high, low) if node is None else [node.execute(m, 3.0, 0.0, 1.0, False).result[0] for m in (high, low)]
        out = run(*models, **numbers)
        found[name] = {**calls, "finite": bool(out.isfinite().all())}
    for handle in handles:
        handle.remove()
    return found


def long_text(tmp):
    """1024 text rows, as joining two prompts gives: our MODEL and the native one."""
    files, numbers = wide_pair("t2v-a14b", tmp), dict(solver="euler", schedule="simple", steps=2, shift=8.0)
    torch.manual_seed(6)
    conds = [[[torch.randn(1, 1024, 4096), {}]] for _ in range(2)]
    ours = run(*part("nodes.host.loading").load_pair(*files), conds=conds, **numbers)
    return difference(ours, run(*(comfy.sd.load_diffusion_model(file) for file in files), conds=conds, **numbers))


def what_one_model_is_told(tmp):
    """Wrappers and scheduled hooks of a MODEL in both slots against that MODEL alone; and of the low-noise one only."""
    import comfy.hooks
    import comfy_extras.nodes_custom_sampler as custom

    (high, low), _ = pair()
    numbers = dict(solver="dpmpp_2m", schedule="simple", steps=6, shift=5.0, boundary=0.8)
    overridden = custom.CFGOverride.execute(high, 8.0, 0.0, 1.0).result[0]
    found = {
        "override twice": difference(
            run(overridden, None, cfg=(3.0, 3.0), **numbers),
            run(overridden, overridden.clone(), cfg=(3.0, 3.0), **numbers),
        )
    }
    low_override = custom.CFGOverride.execute(low, 8.0, 0.0, 1.0).result[0]
    found["override low"] = difference(
        run(high, low_override, cfg=(3.0, 3.0), **numbers), run(high, low, cfg=(3.0, 8.0), **numbers)
    )
    torch.manual_seed(3)
    lora = {
        f"diffusion_model.blocks.0.self_attn.q.lora_{name}.weight": torch.randn(*size)
        for name, size in (("down", (4, 128)), ("up", (128, 4)))
    }

    def hooked():
        group = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
        frames = comfy.hooks.HookKeyframeGroup()
        for strength, start in ((0.0, 0.0), (1.0, 0.3), (0.3, 0.9)):
            frames.add(comfy.hooks.HookKeyframe(strength, start_percent=start, guarantee_steps=1))
        group.set_keyframes_on_hooks(frames)
        return [[[c[0][0], {"hooks": group}]] for c in texts()]

    found["hooks twice"] = difference(
        run(high, None, cfg=(3.0, 3.0), conds=hooked(), **numbers),
        run(high, high.clone(), cfg=(3.0, 3.0), conds=hooked(), **numbers),
    )
    return found
