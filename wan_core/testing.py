"""Tiny models with random weights in the official folder layout, for tests and benchmarks.

Every part of a release is there under its real name, so the whole path from prompt to mp4 runs in seconds; the clips
are noise.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .config import PRESETS, ImageEncoderConfig, Preset, TextConfig, VAEConfig
from .dit import WanDiT
from .text import UMT5
from .vae import WanVAE
from .vision import ImageEncoder

_CORPUS = (
    "a red circle moves to the right over a blue background",
    "the green square falls slowly, the camera stays still",
    "one yellow triangle jumps up and turns around",
    "a cat walks through the snow, cinematic light, high detail",
    "一个红色的圆形在蓝色背景上向右移动",
    "绿色的方块慢慢落下，镜头保持静止",
    "一只猫在雪地里行走，电影光线，细节丰富",
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量",
)


def tiny_preset(name: str, text_dim: int = 64) -> Preset:
    """The preset `name` with small widths and sizes; task, channels, strides and boundary stay.

    Args:
        text_dim: width of the text encoder.
    """
    preset = PRESETS[name]
    layers = 4 if preset.dit.vace_layers else 2
    clip = ImageEncoderConfig(80, 96, 1, 2, 14, 28) if preset.image_encoder else None
    dit = replace(
        preset.dit,
        dim=128,
        ffn_dim=192,
        heads=1,
        layers=layers,
        text_dim=text_dim,
        vace_layers=tuple(range(0, layers, 2)) if preset.dit.vace_layers else (),
        image_dim=clip.dim if clip else 0,
        image_positions=2 * clip.tokens if clip and preset.dit.image_positions else 0,
    )
    vae = VAEConfig(dim=8, decoder_dim=8) if preset.vae.version == "2.1" else VAEConfig.wan22(8, 8)
    text = TextConfig(dim=text_dim, dim_attn=text_dim, ffn_dim=96, heads=4, layers=2, vocab=384)
    return replace(preset, dit=dit, vae=vae, text=text, image_encoder=clip, width=96, height=64, frames=17, steps=8)


def write_tiny_model(folder: str | Path, name: str = "t2v-a14b", seed: int = 0, text_dim: int = 64) -> Path:
    """Write a random model of the family `name` and return its folder, laid out like an official release.

    Args:
        folder: created where missing.
        name: one of `wan_core.config.PRESETS`.
        seed: of the random weights.
        text_dim: width of the text encoder.
    """
    folder, preset = Path(folder), tiny_preset(name, text_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        experts = ("high_noise_model", "low_noise_model") if preset.two_experts else ("",)
        for expert in experts:
            write_expert(folder / expert, WanDiT(preset.dit), preset)
        torch.save(_with_uneven_norms(WanVAE(preset.vae)).state_dict(), folder / f"Wan{preset.vae.version}_VAE.pth")
        text = _with_uneven_norms(UMT5(preset.text)).to(torch.bfloat16)
        torch.save(text.state_dict(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
        if preset.image_encoder is not None:
            clip = ImageEncoder(preset.image_encoder)
            _with_uneven_norms(clip)
            torch.save(official_clip(clip), folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    tokenizer = folder / "google" / "umt5-xxl"
    tokenizer.mkdir(parents=True, exist_ok=True)
    (tokenizer / "spiece.model").write_bytes(train_tokenizer(preset.text.vocab))
    return folder


def write_expert(folder: Path, model: WanDiT, preset: Preset) -> None:
    """One transformer as config.json and two shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    c = model.config
    config = {
        "_class_name": "WanModel",
        "model_type": preset.task,
        "text_len": c.text_len,
        "in_dim": c.in_channels,
        "dim": c.dim,
        "ffn_dim": c.ffn_dim,
        "freq_dim": c.freq_dim,
        "out_dim": c.out_channels,
        "num_heads": c.heads,
        "num_layers": c.layers,
        "text_dim": c.text_dim,
        "eps": c.eps,
    }
    if c.vace_layers:
        config |= {"vace_layers": list(c.vace_layers), "vace_in_dim": c.vace_channels}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    state = model.state_dict()
    names = sorted(state)
    weight_map: dict[str, str] = {}
    for shard, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"diffusion_pytorch_model-{shard:05}-of-00002.safetensors"
        save_file({name: state[name].contiguous() for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index, indent=2))


# Official name of a tensor of the vision tower → ours; N is the number of the layer.
_CLIP = {
    "cls_embedding": "embeddings.class_embedding",
    "pos_embedding": "embeddings.position_embedding.weight",
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pre_norm": "pre_layrnorm",
    "transformer.N.norm1": "encoder.layers.N.layer_norm1",
    "transformer.N.attn.proj": "encoder.layers.N.self_attn.out_proj",
    "transformer.N.norm2": "encoder.layers.N.layer_norm2",
    "transformer.N.mlp.0": "encoder.layers.N.mlp.fc1",
    "transformer.N.mlp.2": "encoder.layers.N.mlp.fc2",
}


def official_clip(encoder: ImageEncoder) -> dict[str, Tensor]:
    """The vision tower as the official file has it: q, k and v in one tensor, and parts that nothing here runs."""
    own, layers, state = encoder.state_dict(), encoder.config.layers, {}
    for official, name in _CLIP.items():
        for n in range(layers if "N" in name else 1):
            for suffix in ("", ".weight", ".bias"):
                value = own.get(name.replace("N", str(n)) + suffix)
                if value is not None:
                    state[official.replace("N", str(n)) + suffix] = value[None] if "pos_" in official else value
    state["cls_embedding"] = state["cls_embedding"].view(1, 1, -1)
    for n in range(layers):
        for suffix in ("weight", "bias"):
            parts = [own[f"encoder.layers.{n}.self_attn.{letter}_proj.{suffix}"] for letter in "qkv"]
            state[f"transformer.{n}.attn.to_qkv.{suffix}"] = torch.cat(parts)
    last = f"transformer.{layers}."
    state |= {last + name.removeprefix("transformer.0."): t for name, t in state.items() if ".0." in name[:14]}
    state |= {"post_norm.weight": own["pre_layrnorm.weight"], "post_norm.bias": own["pre_layrnorm.bias"]}
    visual = {f"visual.{name}": value.clone() for name, value in state.items()}
    return visual | {
        "textual.head.0.weight": torch.zeros(4, 4, dtype=torch.float32),
        "log_scale": torch.zeros((), dtype=torch.float32),
    }


def train_tokenizer(vocab: int, corpus: Sequence[str] = _CORPUS, words: Sequence[str] = ()) -> bytes:
    """A small sentencepiece model with umT5's special ids: pad 0, end of sequence 1, unknown 2.

    Args:
        vocab: largest number of pieces.
        words: pieces that are always in the vocabulary, such as Chinese words, which no space separates.
    """
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(corpus),
        model_writer=model,
        vocab_size=vocab,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        user_defined_symbols=list(words),
    )
    return model.getvalue()


@torch.no_grad()
def _with_uneven_norms(module: nn.Module) -> nn.Module:
    """The module with norm weights around 1 instead of exactly 1, so that a wrong norm shows in its output."""
    for name, parameter in module.named_parameters():
        if "norm" in name or name.endswith("gamma"):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module
