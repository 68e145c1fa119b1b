"""Our CLIP: against the official recording, against the library, and what it holds in memory."""

import json
from pathlib import Path

from host import comfy_nodes, difference, part
from places import GOLDEN, MODELS, STORED
from safetensors import safe_open
from safetensors.torch import load_file, save_file

KEY = "umt5xxl"
PROMPTS = (
    "",
    "a red circle moves to the right",
    "  two &amp;amp; 红色的圆形，\t向右移动 ",
    "(a cat:1.3) [dog] ((snow))",
    "a cat \\(animal\\) and \\\\(more",
    "a embedding:b walks",
    "a red circle moves to the right " * 90,
)


def stored_encoder() -> Path:
    return next((Path(MODELS) / "text_encoders" / "t2v-a14b").glob("*.safetensors"))


def official_text(tmp):
    """The recorded official hidden states, from the recording's weights in a file under official names."""
    recording = Path(GOLDEN) / "t5.safetensors"
    with safe_open(recording, "pt") as file:
        lengths = json.loads(file.metadata()["meta"])["config"]["lengths"]
    tensors = load_file(recording)
    weights = {key.removeprefix("w."): t for key, t in tensors.items() if key.startswith("w.")}
    path = f"{tmp}/official.safetensors"
    save_file(weights | {"spiece_model": load_file(stored_encoder())["spiece_model"]}, path)
    clip, found = part("nodes.host.text").load_clip(path), []
    for sample, n in enumerate(lengths):
        tokens = [(token, 1.0) for token in tensors["in.ids"][sample].tolist()]
        text, pooled = clip.encode_from_tokens({KEY: [tokens]}, return_pooled=True)
        rows, rest = text[0, :n], text[0, n:]
        shaped = list(text.shape) == [1, 512, rows.shape[1]] and pooled is None and not rest.any()
        found.append([difference(rows, tensors[f"out.trimmed{sample}"]), shaped])
    return found


def prompts_as_in_the_library(tmp):
    """Prompt → difference to the library on the same float32 file, for our CLIP."""
    text, library = part("nodes.host.text"), part("wan_core.checkpoints")
    path = Path(tmp) / "float32.safetensors"
    state = load_file(stored_encoder())
    save_file({name: t.float() if t.is_floating_point() else t for name, t in state.items()}, path)
    clip, encoder = text.load_clip(str(path)), library.load_text_encoder(path)
    tokenizer = part("wan_core.checkpoints.tokenizer").open_tokenizer(path)
    found = {}
    for prompt in PROMPTS:
        ours, expected = text.encode(clip, prompt)[0][0][0], encoder(*tokenizer(prompt))[0]
        found[prompt] = [difference(ours[: len(expected)], expected), not ours[len(expected) :].any(), len(ours)]
    return found


def weighted_prompt():
    """Largest change by a weight in the prompt, through ComfyUI's own node."""
    text, native = part("nodes.host.text"), comfy_nodes.CLIPTextEncode()
    clip = text.load_clip(str(stored_encoder()))
    weighted, plain = (native.encode(clip, prompt)[0][0][0] for prompt in ("(a cat:1.5) walks", "a cat walks"))
    return {"native": difference(weighted, plain), "rows": [weighted.shape[1], plain.shape[1]]}


def text_encoder_bytes():
    """Bytes that ComfyUI counts over those of the file, and whether the GGUF one is still quantized."""
    files = [f"{STORED}/umt5.safetensors", f"{STORED}/umt5.gguf"]
    clips = [part("nodes.host.text").load_clip(file) for file in files]
    weight = clips[1].cond_stage_model.umt5xxl.transformer.encoder.block[0].layer[0].SelfAttention.q.weight
    return {
        "share": [
            clip.patcher.model_size() / Path(file).stat().st_size for clip, file in zip(clips, files, strict=True)
        ],
        "quantized": isinstance(weight, part("wan_core.checkpoints.quant").QuantizedTensor),
    }
