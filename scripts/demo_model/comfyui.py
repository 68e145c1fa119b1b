"""A small model written as the single files of a ComfyUI `models` folder, under the names of the usual downloads."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from wan_core.checkpoints.build import check_part
from wan_core.checkpoints.key_maps import to_official

# preset name → transformers, VAE: Comfy-Org/Wan_2.2_ComfyUI_Repackaged and Comfy-Org/Bernini-R
FILES = {
    "t2v-a14b": (("wan2.2_t2v_high_noise_14B_fp16", "wan2.2_t2v_low_noise_14B_fp16"), "wan_2.1_vae"),
    "i2v-a14b": (("wan2.2_i2v_high_noise_14B_fp16", "wan2.2_i2v_low_noise_14B_fp16"), "wan_2.1_vae"),
    "ti2v-5b": (("wan2.2_ti2v_5B_fp16",), "wan2.2_vae"),
    "vace-a14b": (("wan2.2_fun_vace_high_noise_14B_bf16", "wan2.2_fun_vace_low_noise_14B_bf16"), "wan_2.1_vae"),
    "fun-control-a14b": (
        ("wan2.2_fun_control_high_noise_14B_fp8_scaled", "wan2.2_fun_control_low_noise_14B_fp8_scaled"),
        "wan_2.1_vae",
    ),
    "bernini-r-a14b": (
        ("wan2.2_bernini_r_high_noise_fp8_scaled", "wan2.2_bernini_r_low_noise_fp8_scaled"),
        "wan_2.1_vae",
    ),
}
TEXT_ENCODER = "umt5_xxl_fp16"
LORAS = ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise")


def write_comfyui_models(models: str | Path, source: str | Path, preset: str) -> None:
    """Write the official folder `source` of a small model into a ComfyUI `models` folder.

    Args:
        models: holds `diffusion_models`, `vae`, `text_encoders`; created where missing. Files of the same name are
            replaced.
        source: a folder in the official layout, its text encoder bfloat16 or wider.
        preset: one of `FILES`; says under which names.
    """
    models, source = Path(models), Path(source)
    transformers, vae = FILES[preset]
    folders = ("high_noise_model", "low_noise_model") if len(transformers) == 2 else ("",)
    for folder, name in zip(folders, transformers, strict=True):
        _save(_state(source / folder, "dit"), models / "diffusion_models" / name)
    _save(_state(next(source.glob("Wan*_VAE.pth")), "vae"), models / "vae" / vae)
    text = _huggingface(_state(next(source.glob("models_t5_*.pth")), "text_encoder"))
    tokenizer = (source / "google" / "umt5-xxl" / "spiece.model").read_bytes()
    text["spiece_model"] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    _save(text, models / "text_encoders" / TEXT_ENCODER)


def write_tiny_loras(models: str | Path, source: str | Path, rank: int = 4, seed: int = 0) -> None:
    """Write a random LoRA for each expert of the official folder `source`, named as the distilled 4-step pair."""
    generator = torch.Generator().manual_seed(seed)
    for folder, name in zip(("high_noise_model", "low_noise_model"), LORAS, strict=True):
        lora = {}
        for key, weight in _state(Path(source) / folder, "dit").items():
            if key.endswith(("attn.q.weight", "attn.v.weight")):
                layer = "diffusion_model." + key.removesuffix(".weight")
                lora[f"{layer}.lora_down.weight"] = 0.1 * torch.randn(rank, weight.shape[1], generator=generator)
                lora[f"{layer}.lora_up.weight"] = 0.1 * torch.randn(weight.shape[0], rank, generator=generator)
                lora[f"{layer}.alpha"] = torch.tensor(float(rank))
        _save(lora, Path(models) / "loras" / name)


def _huggingface(official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """umT5 under the names of transformers, which ComfyUI reads."""
    layers = 1 + max(int(name.split(".")[1]) for name in official if name.startswith("blocks."))
    parts = [
        "layer.0.layer_norm",
        *(f"layer.0.SelfAttention.{p}" for p in "qkvo"),
        "layer.0.SelfAttention.relative_attention_bias",
        "layer.1.layer_norm",
        *(f"layer.1.DenseReluDense.{p}" for p in ("wi_0", "wi_1", "wo")),
    ]
    theirs = [f"encoder.block.{i}.{part}.weight" for i in range(layers) for part in parts]
    theirs += ["shared.weight", "encoder.final_layer_norm.weight"]
    return {name: official[ours] for ours, name in to_official("text_encoder", theirs, "umT5").items()}


def _state(path: Path, kind: str) -> dict[str, torch.Tensor]:
    weights = check_part(path, kind).weights
    return {name: weights.tensor(name).contiguous() for name in weights}


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path.with_name(path.name + ".safetensors"))
