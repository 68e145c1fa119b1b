"""Whole models in the layouts that people have, with one or two of their files damaged."""

import io
import json
from functools import cache

import torch
from hypothesis import strategies as st

from tests.support.damage.ggufs import gguf, gguf_file, tensor_entry, tokenizer_entries
from tests.support.damage.headers import file_of, header_of, safetensors
from tests.support.damage.tokenizers import small_json, small_proto
from tests.support.damage.values import damaged_bytes, damaged_json
from tests.support.layouts import llama_cpp_name
from tests.support.small_parts import DIT, NARROW, TEXT, VAE, Shapes, shapes_of

Files = dict[str, bytes]

_OFFICIAL = {"num_heads": 1, "dim": 8, "num_layers": 2, "ffn_dim": 8, "text_dim": 8, "freq_dim": 8, "in_dim": 16}
_DIFFUSERS = {"num_attention_heads": 1, "attention_head_dim": 8, "num_layers": 2, "ffn_dim": 8, "text_dim": 8}
_INDEX = {
    "_class_name": "WanPipeline",
    "boundary_ratio": 0.875,
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def _safetensors(shapes: Shapes, dtype: str = "F32") -> bytes:
    return file_of(*header_of({name: list(shape) for name, shape in shapes.items()}, [dtype]))


def _pth(shapes: Shapes) -> bytes:
    file = io.BytesIO()
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, file)
    return file.getvalue()


def _gguf(shapes: Shapes) -> bytes:
    tensors, data = [], b""
    for name, shape in shapes.items():
        tensors.append(tensor_entry(llama_cpp_name(name), list(shape[::-1]), 0, len(data)))
        size = 4 * torch.Size(shape).numel()
        data += bytes(-(-size // 32) * 32)
    return gguf_file(tensors, tokenizer_entries(), data)


def _sharded(shapes: Shapes, folder: str) -> Files:
    names, files, weight_map = sorted(shapes), {}, {}
    for number in range(2):
        part, name = names[number::2], f"diffusion_pytorch_model-{number + 1:05}-of-00002.safetensors"
        files[f"{folder}/{name}"] = _safetensors({name: shapes[name] for name in part})
        weight_map |= dict.fromkeys(part, name)
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()
    return files | {f"{folder}/diffusion_pytorch_model.safetensors.index.json": index}


@cache
def models() -> list[Files]:
    """Layouts, each whole: file name → contents."""
    dit, vae, text = shapes_of(NARROW), shapes_of(VAE), shapes_of(TEXT)
    official = {
        "Wan2.1_VAE.pth": _pth(vae),
        "models_t5_umt5-xxl-enc-bf16.pth": _pth(text),
        "google/umt5-xxl/spiece.model": small_proto(),
    }
    for expert in ("high_noise_model", "low_noise_model"):
        official |= _sharded(dit, expert) | {f"{expert}/config.json": json.dumps(_OFFICIAL).encode()}
    diffusers = {
        "model_index.json": json.dumps(_INDEX).encode(),
        "vae/config.json": b'{"_class_name": "AutoencoderKLWan", "base_dim": 2}',
        "vae/diffusion_pytorch_model.safetensors": _safetensors(vae),
        "text_encoder/config.json": b'{"d_model": 8, "num_layers": 2}',
        "text_encoder/model.safetensors": _safetensors(text, "BF16"),
        "tokenizer/tokenizer.json": json.dumps(small_json()).encode(),
    }
    for expert in ("transformer", "transformer_2"):
        diffusers |= {
            f"{expert}/config.json": json.dumps(_DIFFUSERS).encode(),
            f"{expert}/diffusion_pytorch_model.safetensors": _safetensors(dit),
        }
    comfyui = {
        "vae/wan_2.1_vae.safetensors": _safetensors(vae, "BF16"),
        "text_encoders/umt5-xxl.gguf": _gguf(text),
        "diffusion_models/wan_high_noise.safetensors": _safetensors(shapes_of(DIT), "BF16"),
        "diffusion_models/wan_low_noise.safetensors": _safetensors(shapes_of(DIT), "F8_E4M3"),
    }
    return [official, diffusers, comfyui]


@cache
def _objects() -> dict[str, dict]:
    """File name → the JSON object in it."""
    return {name: json.loads(raw) for files in models() for name, raw in files.items() if name.endswith(".json")}


@st.composite
def model(draw) -> Files:
    files = dict(draw(st.sampled_from(models())))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        name = draw(st.sampled_from(sorted(files)))
        match draw(st.sampled_from(["contents", "contents", "contents", "drop", "swap", "rename", "more"])):
            case "contents" if name in _objects() and draw(st.booleans()):
                files[name] = draw(damaged_json(_objects()[name]))
            case "contents" if name.endswith(".safetensors") and draw(st.booleans()):
                files[name] = draw(safetensors())["model.safetensors"]
            case "contents" if name.endswith(".gguf") and draw(st.booleans()):
                files[name] = draw(gguf())["model.gguf"]
            case "contents":
                files[name] = draw(damaged_bytes(files[name]))
            case "drop" if len(files) > 1:
                del files[name]
            case "swap":
                other = draw(st.sampled_from(sorted(files)))
                files[name], files[other] = files[other], files[name]
            case "rename":
                folder = name.rpartition("/")[0]
                new = draw(st.sampled_from(["x.safetensors", "x.gguf", "model.safetensors.index.json", "config.json"]))
                files[f"{folder}/{new}" if folder else new] = files.pop(name)
            case "more":
                new = draw(st.sampled_from(["config.json", "._x.safetensors", "model_index.json", "a/b/c.safetensors"]))
                files[new] = files[name]
    return files
