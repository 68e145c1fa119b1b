"""The tiny official folder written again in the other layouts, by the tools that write them in real life."""

from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2

from wan_core.checkpoints import load_image_encoder, load_text_encoder, load_vae
from wan_core.checkpoints.build import check_part
from wan_core.checkpoints.key_maps import to_official
from wan_core.config import DiTConfig, Preset, TextConfig, VAEConfig
from wan_core.testing import tiny_preset


def state_of(path: Path, kind: str) -> dict[str, torch.Tensor]:
    weights = check_part(path, kind).weights
    return {name: weights.tensor(name) for name in weights}


def fill(module: torch.nn.Module, kind: str, official: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Give a foreign module our weights, through the name table. Its own forward then judges the table."""
    names = to_official(kind, module.state_dict(), type(module).__name__)
    assert set(names) == set(official)
    module.load_state_dict({theirs: official[ours] for ours, theirs in names.items()}, strict=kind != "text_encoder")
    return module.eval()


def diffusers_transformer(config: DiTConfig):
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    arguments = dict(
        patch_size=config.patch,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=config.eps,
    )
    if config.vace_layers:
        return WanVACETransformer3DModel(**arguments, vace_layers=list(config.vace_layers), vace_in_channels=96)
    if config.image_dim:
        arguments |= dict(image_dim=config.image_dim, added_kv_proj_dim=config.dim)
        arguments |= dict(pos_embed_seq_len=config.image_positions or None)
    return WanTransformer3DModel(**arguments)


def diffusers_vae(config: VAEConfig):
    from diffusers import AutoencoderKLWan

    newer = {}
    if config.version == "2.2":
        newer = dict(
            decoder_base_dim=config.decoder_dim,
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
        )
    return AutoencoderKLWan(
        base_dim=config.dim, z_dim=config.z_channels, latents_mean=config.mean, latents_std=config.std, **newer
    )


def huggingface_text_encoder(config: TextConfig):
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=config.vocab,
            d_model=config.dim,
            d_kv=config.dim_attn // config.heads,
            d_ff=config.ffn_dim,
            num_layers=config.layers,
            num_heads=config.heads,
            feed_forward_proj="gated-gelu",
        )
    )


def write_diffusers_folder(folder: Path, source: Path, preset: Preset) -> Path:
    """Through the savers of diffusers and transformers."""
    import diffusers
    from transformers import T5TokenizerFast

    experts = [source / "high_noise_model", source / "low_noise_model"] if preset.two_experts else [source]
    transformers = [fill(diffusers_transformer(preset.dit), "dit", state_of(path, "dit")) for path in experts]
    vae = diffusers_vae(preset.vae)
    fill(vae, "vae", load_vae(source / f"Wan{preset.vae.version}_VAE.pth").state_dict())
    text = load_text_encoder(source / "models_t5_umt5-xxl-enc-bf16.pth").state_dict()
    encoder = fill(huggingface_text_encoder(preset.text).to(torch.bfloat16), "text_encoder", text)
    tokenizer = T5TokenizerFast.from_pretrained(source / "google" / "umt5-xxl", extra_ids=0)
    parts = dict(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=vae,
        transformer=transformers[0],
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=preset.shift
        ),
    )
    if preset.two_experts:
        parts |= dict(transformer_2=transformers[1], boundary_ratio=preset.boundary)
    if preset.dit.is_image_to_video:
        clip = transformers_clip(source, projection=False) if preset.image_encoder else None
        pipeline = diffusers.WanImageToVideoPipeline(image_encoder=clip, image_processor=None, **parts)
    elif preset.task == "vace":
        pipeline = diffusers.WanVACEPipeline(**parts)
    else:
        pipeline = diffusers.WanPipeline(expand_timesteps=preset.task == "ti2v", **parts)
    pipeline.save_pretrained(folder, max_shard_size="1MB")
    return folder


def write_comfyui_folder(folder: Path, source: Path, preset: Preset, prefix: str = "") -> Path:
    """Single files under the names and in the folders of the usual downloads."""
    names = {"high_noise_model": "wan2.2_high_noise_14B_fp16", "low_noise_model": "wan2.2_low_noise_14B_fp16"}
    experts = names if preset.two_experts else {"": "wan2.2_5B_fp16"}
    for path, name in experts.items():
        state = {prefix + key: t.contiguous() for key, t in state_of(source / path, "dit").items()}
        _save(state, folder / "diffusion_models" / f"{name}.safetensors")
    vae = state_of(source / f"Wan{preset.vae.version}_VAE.pth", "vae")
    _save(vae, folder / "vae" / f"wan_{preset.vae.version}_vae.safetensors")
    encoder = huggingface_text_encoder(preset.text).to(torch.bfloat16)
    fill(encoder, "text_encoder", state_of(source / "models_t5_umt5-xxl-enc-bf16.pth", "text_encoder"))
    state = {key: t for key, t in encoder.state_dict().items() if key != "encoder.embed_tokens.weight"}
    proto = (source / "google" / "umt5-xxl" / "spiece.model").read_bytes()
    state["spiece_model"] = torch.frombuffer(bytearray(proto), dtype=torch.uint8)
    _save(state, folder / "text_encoders" / "umt5_xxl_fp16.safetensors")
    if preset.image_encoder:
        clip = transformers_clip(source, projection=True).state_dict()
        _save(clip, folder / "clip_vision" / "clip_vision_h.safetensors")
    return folder


def transformers_clip(source: Path, projection: bool):
    """transformers' CLIP vision model with the weights of an official folder; its last layer is random."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    ours = load_image_encoder(next(source.glob("models_clip*")))
    config = CLIPVisionConfig(
        hidden_size=ours.config.dim,
        intermediate_size=ours.config.ffn_dim,
        num_hidden_layers=ours.config.layers + 1,
        num_attention_heads=ours.config.heads,
        image_size=ours.config.image_size,
        patch_size=ours.config.patch,
        hidden_act="gelu",
    )
    model = (CLIPVisionModelWithProjection if projection else CLIPVisionModel)(config).eval()
    missing, unknown = getattr(model, "vision_model", model).load_state_dict(ours.state_dict(), strict=False)
    assert not unknown and len(missing) == 18, "the last layer and the norm behind it"
    return model


def _save(state, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


def write_layout(layout: str, folder: Path, source: Path, name: str) -> Path:
    """The model of `source` in another layout; "official" is `source` itself."""
    preset = tiny_preset(name)
    if layout == "diffusers":
        return write_diffusers_folder(folder, source, preset)
    if layout == "comfyui":
        return write_comfyui_folder(folder, source, preset)
    return source


K_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")  # which the gguf package dequantizes but cannot quantize to
_K_SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}  # bytes of float16 fields


def write_gguf(path, state, kind_of, architecture="wan", more=lambda writer: None):
    """Write with the reference package; returns what the package dequantizes again."""
    writer, dequantized, rng = gguf.GGUFWriter(path, architecture), {}, np.random.default_rng(1)
    more(writer)
    for name, tensor in state.items():
        kind, data = gguf.GGMLQuantizationType[kind_of(name, tensor)], tensor.float().numpy()
        if kind.name in K_TYPES:  # which only llama.cpp itself can write: random numbers instead
            block, size = gguf.GGML_QUANT_SIZES[kind]
            quantized = rng.integers(0, 256, (*data.shape[:-1], data.shape[-1] // block, size), dtype=np.uint8)
            for start in _K_SCALES[kind.name]:
                noise = rng.normal(0, 2e-4, (*quantized.shape[:-1], 1))
                quantized[..., start : start + 2] = noise.astype(np.float16).view(np.uint8)
            quantized = quantized.reshape(*data.shape[:-1], -1)
        else:
            quantized = gguf.quants.quantize(data, kind)
        dequantized[name] = torch.from_numpy(gguf.quants.dequantize(quantized, kind).reshape(data.shape).copy())
        writer.add_tensor(name, quantized, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dequantized


def llama_cpp_name(name: str) -> str:
    """The name that llama.cpp's converter gives a parameter of the text encoder."""
    names = {
        "token_embedding": "token_embd",
        "norm": "enc.output_norm",
        "norm1": "attn_norm",
        "norm2": "ffn_norm",
        "attn.q": "attn_q",
        "attn.k": "attn_k",
        "attn.v": "attn_v",
        "attn.o": "attn_o",
        "pos_embedding.embedding": "attn_rel_b",
        "ffn.gate.0": "ffn_gate",
        "ffn.fc1": "ffn_up",
        "ffn.fc2": "ffn_down",
    }
    module = name.removesuffix(".weight")
    if module.startswith("blocks."):
        _, layer, part = module.split(".", 2)
        return f"enc.blk.{layer}.{names[part]}.weight"
    return names[module] + ".weight"


def add_tokenizer(writer: gguf.GGUFWriter, proto: bytes) -> None:
    """A sentencepiece model in the pieces that llama.cpp's converter makes of it."""
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([piece.piece for piece in model.pieces])
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types([piece.type for piece in model.pieces])
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)


def write_gguf_folder(folder: Path, source: Path, preset: Preset, kind: str = "Q8_0") -> Path:
    """Experts and text encoder in GGUF, the VAE as ComfyUI's single file."""
    write_comfyui_folder(folder, source, preset)

    def kind_of(name, tensor):
        return kind if tensor.ndim == 2 and ("blocks." in name or "blk." in name) and "rel_b" not in name else "F32"

    for file in sorted((folder / "diffusion_models").iterdir()):
        write_gguf(file.with_suffix(".gguf"), state_of(file, "dit"), kind_of)
        file.unlink()
    text = next((folder / "text_encoders").iterdir())
    state = {llama_cpp_name(name): t for name, t in state_of(text, "text_encoder").items()}
    proto = (source / "google" / "umt5-xxl" / "spiece.model").read_bytes()
    write_gguf(text.with_suffix(".gguf"), state, kind_of, "t5encoder", lambda writer: add_tokenizer(writer, proto))
    text.unlink()
    return folder
