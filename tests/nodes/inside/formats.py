"""Every storage of a transformer or a text encoder: ours beside the same weights dequantized, and beside native."""

import json
from pathlib import Path

import comfy.sd
import torch
from comfy.quant_ops import QuantizedTensor
from host import difference, part, run, texts
from native import wide_pair
from places import MODELS, STORED
from safetensors.torch import load_file, save_file


def is_matrix(name, tensor):
    return "blocks." in name and tensor.ndim == 2


def quantize(state: dict, layout: str) -> tuple[dict, dict, dict | None]:
    """(what the file holds, the same dequantized in float32, the header's metadata)."""
    quantized, dequantized, layers = dict(state), {name: t.float() for name, t in state.items()}, {}
    kind = torch.float8_e5m2 if "e5m2" in layout else torch.float8_e4m3fn
    for name, tensor in state.items():
        if not is_matrix(name, tensor):
            continue
        layer, tensor = name.removesuffix(".weight"), tensor.float()
        if layout == "int8":
            scale = tensor.abs().amax() / 127
            quantized[name] = (tensor / scale).round().to(torch.int8)
        else:
            scale = torch.tensor(1.0) if layout.startswith("plain") else tensor.abs().amax() / torch.finfo(kind).max
            quantized[name] = (tensor / scale).to(kind)
        dequantized[name] = quantized[name].float() * scale
        if layout.startswith("scaled"):
            quantized[f"{layer}.scale_weight"] = scale
        elif not layout.startswith("plain"):
            quantized[f"{layer}.weight_scale"] = scale
            layers[layer] = {"format": "int8_tensorwise" if layout == "int8" else str(kind).removeprefix("torch.")}
            layers[layer]["full_precision_matrix_mult"] = True
    if layout.startswith("scaled"):
        quantized["scaled_fp8"] = torch.zeros(2, dtype=kind)
    if layout == "metadata in the header":
        return quantized, dequantized, {"_quantization_metadata": json.dumps({"layers": layers})}
    for layer, note in layers.items():
        quantized[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
    return quantized, dequantized, None


LAYOUTS = (
    "plain e4m3",
    "plain e5m2",
    "scaled e4m3",
    "metadata in tensors",
    "metadata e5m2",
    "metadata in the header",
    "int8",
)


def stored_experts(tmp):
    """Layout → (difference to the dequantized weights, difference to the native loader on the same file)."""
    load, found = part("nodes.host.loading").load_expert, {}
    state, conds = load_file(wide_pair("t2v-a14b", tmp)[0]), texts(4096)
    for layout in LAYOUTS:
        quantized, dequantized, metadata = quantize(state, layout)
        files = [f"{tmp}/{layout} {which}.safetensors" for which in ("quantized", "dequantized")]
        save_file({name: t.contiguous() for name, t in quantized.items()}, files[0], metadata)
        save_file(dequantized, files[1])
        ours, plain, native = (
            run(model, None, conds=conds) for model in (*map(load, files), comfy.sd.load_diffusion_model(files[0]))
        )
        found[layout] = [difference(ours, plain), difference(ours, native)]
    return found


def prefixed_metadata(tmp):
    """Whose layers the header names → difference to the dequantized weights, of an expert under ComfyUI's prefix."""
    load, prefix, found = part("nodes.host.loading").load_expert, "model.diffusion_model.", {}
    state, conds = load_file(wide_pair("t2v-a14b", tmp)[0]), texts(4096)
    quantized, dequantized, metadata = quantize(state, "metadata in the header")
    (key,) = metadata
    layers = json.loads(metadata[key])["layers"]
    save_file(dequantized, f"{tmp}/dequantized.safetensors")
    plain = run(load(f"{tmp}/dequantized.safetensors"), None, conds=conds)
    for whose, before in (("the checkpoint's", prefix), ("the model's", "")):
        stated = json.dumps({"layers": {before + layer: note for layer, note in layers.items()}})
        file = f"{tmp}/{whose} metadata.safetensors"
        save_file({prefix + name: t.contiguous() for name, t in quantized.items()}, file, {key: stated})
        found[whose] = difference(run(load(file), None, conds=conds), plain)
    return found


PACKED = {
    "mxfp8": ("TensorCoreMXFP8Layout", {"format": "mxfp8"}, {}),
    "nvfp4": ("TensorCoreNVFP4Layout", {"format": "nvfp4"}, {}),
    "rotated int8": (
        "TensorWiseINT8Layout",
        {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64},
        {"per_channel": True, "convrot": True, "convrot_groupsize": 64},
    ),
}


def packed_experts(tmp):
    """Format that ComfyUI alone dequantizes → differences to the native loader on the same file and to the original."""
    load, found = part("nodes.host.loading").load_expert, {}
    (file, _), conds = wide_pair("t2v-a14b", tmp), texts(4096)
    original = run(load(file), None, conds=conds)
    for word, (layout, note, options) in PACKED.items():
        state = load_file(file)
        note = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
        for name in [name for name, t in state.items() if is_matrix(name, t)]:
            state |= QuantizedTensor.from_float(state[name], layout, **options).state_dict(name)
            state[name.removesuffix("weight") + "comfy_quant"] = note.clone()
        for prefix in ("", "model.diffusion_model."):
            save_file({prefix + name: t.contiguous() for name, t in state.items()}, f"{tmp}/packed.safetensors")
            ours = run(load(f"{tmp}/packed.safetensors"), None, conds=conds)
            native = run(comfy.sd.load_diffusion_model(f"{tmp}/packed.safetensors"), None, conds=conds)
            found[f"{word} {prefix}".strip()] = [difference(ours, native), difference(ours, original)]
    return found


def gguf_experts():
    """An expert in GGUF: against the same weights dequantized; with a LoRA; and the model afterwards."""
    load, quant = part("nodes.host.loading").load_expert, part("wan_core.checkpoints.quant")
    model, plain = load(f"{STORED}/high.gguf"), load(f"{STORED}/high.safetensors")
    found = {"plain": difference(run(model, None), run(plain, None))}
    layer = "diffusion_model.blocks.0.self_attn.q"
    torch.manual_seed(2)
    lora = {
        f"{layer}.lora_down.weight": torch.randn(4, 128) * 0.2,
        f"{layer}.lora_up.weight": torch.randn(128, 4) * 0.2,
    }
    before = run(model, None)
    changed = [comfy.sd.load_lora_for_models(m, None, lora, 1.0, 0)[0] for m in (model, plain)]
    results = [run(m, None) for m in changed]
    found["lora"], found["lora changes"] = difference(*results), difference(results[0], before)
    found["after"] = difference(run(model, None), before)
    weight = model.model.diffusion_model.blocks[0].self_attn.q.weight
    found["still quantized"] = isinstance(weight, quant.QuantizedTensor)
    found["bytes"] = [model.model_size(), plain.model_size()]
    return found


def stored_text_encoders(tmp):
    """Layout → largest difference to the dequantized encoder, relative to its largest value."""
    load, found = part("nodes.host.text").load_clip, {}
    path = next((Path(MODELS) / "text_encoders" / "t2v-a14b").glob("*.safetensors"))
    state = load_file(path)
    for layout in ("plain e4m3", "scaled e4m3", "metadata in tensors", "metadata in the header"):
        prefix = "text_encoders.umt5xxl.transformer." if layout == "metadata in the header" else ""
        names = {name: name.replace("encoder.block.", "encoder.blocks.") for name in state}
        quantized, dequantized, metadata = quantize(
            {names[name]: t for name, t in state.items() if name != "spiece_model"}, layout
        )
        header = metadata and {
            key: text.replace("encoder.blocks.", f"{prefix}encoder.block.") for key, text in metadata.items()
        }
        files = [f"{tmp}/{layout} text {which}.safetensors" for which in ("quantized", "dequantized")]
        for content, file in zip((quantized, dequantized), files, strict=True):
            content = {
                prefix + name.replace("encoder.blocks.", "encoder.block."): t.contiguous()
                for name, t in content.items()
            }
            content = {
                name: t.to(torch.bfloat16) if t.dtype == torch.float32 and "scale" not in name else t
                for name, t in content.items()
            }
            save_file(content | {"spiece_model": state["spiece_model"]}, file, header if file == files[0] else None)
        found[layout] = _text_difference(*(load(file) for file in files))
    found["gguf"] = _text_difference(load(f"{STORED}/umt5.gguf"), load(f"{STORED}/umt5.safetensors"))
    return found


def _text_difference(one, other):
    encode = part("nodes.host.text").encode
    a, b = (encode(clip, "a red circle moves 红色")[0][0] for clip in (one, other))
    return difference(a, b) / float(b.abs().max())
