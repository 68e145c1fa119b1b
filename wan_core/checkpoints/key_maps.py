"""Parameter names of other layouts as tables; every part is loaded under its official names."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ..errors import CheckpointError
from ..text.encoder import HUGGING_FACE
from .families import family_of

PARTS: Final = {
    "dit": "a diffusion transformer",
    "vae": "a VAE",
    "text_encoder": "a umT5 text encoder",
    "image_encoder": "a CLIP vision encoder",
}
# What stands before a part's names in a single file; the first that fits is taken.
PREFIXES: Final = {
    "dit": ("", "model.diffusion_model.", "diffusion_model."),
    "vae": ("", "vae.", "first_stage_model."),
    "text_encoder": ("", "text_encoders.umt5xxl.transformer."),
    "image_encoder": ("",),
}
# kind → layout → names that only this layout has; one of them may be missing from a damaged file.
SIGNATURE_KEYS: Final = {
    "dit": {
        "official": ("head.modulation", "blocks.0.cross_attn.q.weight"),
        "diffusers": ("condition_embedder.time_proj.weight", "blocks.0.attn2.to_q.weight"),
    },
    "vae": {
        "official": ("decoder.middle.0.residual.0.gamma", "encoder.middle.0.residual.0.gamma"),
        "diffusers": ("decoder.mid_block.resnets.0.norm1.gamma", "encoder.mid_block.resnets.0.norm1.gamma"),
    },
    "text_encoder": {
        "official": ("blocks.0.pos_embedding.embedding.weight", "blocks.0.ffn.gate.0.weight"),
        "huggingface": (
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
        ),
        "gguf": ("enc.blk.0.attn_rel_b.weight", "enc.blk.0.ffn_gate.weight"),
    },
    "image_encoder": {
        "official": ("visual.cls_embedding", "visual.transformer.0.attn.to_qkv.weight"),
        "huggingface": ("vision_model.embeddings.class_embedding", "vision_model.pre_layrnorm.weight"),
        "transformers": ("embeddings.class_embedding", "pre_layrnorm.weight"),
    },
}

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

DIT: tuple[Rule, ...] = (
    (r"^condition_embedder\.(time|text)_embedder\.linear_1\.", r"\1_embedding.0."),
    (r"^condition_embedder\.(time|text)_embedder\.linear_2\.", r"\1_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"^condition_embedder\.image_embedder\.pos_embed$", "img_emb.emb_pos"),
    (r"^proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.norm2\.", ".norm3."),  # diffusers numbers the norms in order of use
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    (r"\.proj_in\.", ".before_proj."),
    (r"\.proj_out\.", ".after_proj."),
)
_VAE: tuple[Rule, ...] = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"(\.middle\.[02]|_blocks\.\d+(?:\.resnets\.\d+)?)\.norm1\.", r"\1.residual.0."),
    (r"(\.middle\.[02]|_blocks\.\d+(?:\.resnets\.\d+)?)\.conv1\.", r"\1.residual.2."),
    (r"(\.middle\.[02]|_blocks\.\d+(?:\.resnets\.\d+)?)\.norm2\.", r"\1.residual.3."),
    (r"(\.middle\.[02]|_blocks\.\d+(?:\.resnets\.\d+)?)\.conv2\.", r"\1.residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
_VAE21: tuple[Rule, ...] = (
    *_VAE,
    (r"\.down_blocks\.(\d+)\.", r".downsamples.\1."),
    (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda m: f".upsamples.{4 * int(m[1]) + int(m[2])}."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f".upsamples.{4 * int(m[1]) + 3}."),
)
_VAE22: tuple[Rule, ...] = (
    *_VAE,
    (r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r".downsamples.\1.downsamples.\2."),
    (r"\.down_blocks\.(\d+)\.downsampler\.", r".downsamples.\1.downsamples.2."),
    (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", r".upsamples.\1.upsamples.\2."),
    (r"\.up_blocks\.(\d+)\.upsampler\.", r".upsamples.\1.upsamples.3."),
)
_TEXT: tuple[Rule, ...] = tuple(
    (f"^{re.escape(theirs)}\\.".replace("N", r"(\d+)"), official.replace("N", r"\1") + ".")
    for official, theirs in HUGGING_FACE.items()
)
_TEXT_GGUF: tuple[Rule, ...] = (
    (r"^token_embd\.", "token_embedding."),
    (r"^enc\.output_norm\.", "norm."),
    (r"^enc\.blk\.(\d+)\.", r"blocks.\1."),
    (r"\.attn_norm\.", ".norm1."),
    (r"\.attn_rel_b\.", ".pos_embedding.embedding."),
    (r"\.attn_([qkvo])\.", r".attn.\1."),
    (r"\.ffn_norm\.", ".norm2."),
    (r"\.ffn_gate\.", ".ffn.gate.0."),
    (r"\.ffn_up\.", ".ffn.fc1."),
    (r"\.ffn_down\.", ".ffn.fc2."),
)

# The vision tower is loaded under the names of transformers: the official file has q, k and v in one tensor.
_IMAGE_OFFICIAL: tuple[Rule, ...] = (
    (r"^visual\.(patch_embedding\.weight)$", r"vision_model.embeddings.\1"),
    (r"^visual\.cls_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.pos_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.pre_norm\.", "vision_model.pre_layrnorm."),
    (r"^visual\.post_norm\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.(\d+)\.", r"vision_model.encoder.layers.\1."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.attn\.to_qkv\.", ".self_attn.qkv_proj."),
    (r"\.attn\.proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.2\.", ".mlp.fc2."),
)

_TABLES: Final[Mapping[tuple[str, str], tuple[Rule, ...]]] = {
    ("dit", "diffusers"): DIT,
    ("text_encoder", "huggingface"): _TEXT,
    ("text_encoder", "gguf"): _TEXT_GGUF,
    ("image_encoder", "official"): _IMAGE_OFFICIAL,
    ("image_encoder", "transformers"): ((r"^", "vision_model."),),
}
# Tensors in the file that are no parameters: a norm that diffusers' first conversions of Wan2.1 image-to-video have and
# no code uses; the tokenizer, and a tied copy of shared.weight.
_NOT_PARAMETERS: Final = {
    "dit": re.compile(r"blocks\.\d+\.attn2\.norm_added_q\.weight"),
    "text_encoder": re.compile(r"spiece_model|encoder\.embed_tokens\.weight"),
}


def find_part(kind: str, names: Iterable[str]) -> tuple[str, str] | None:
    """(prefix, layout) of a part of this kind among `names`, or None."""
    names = set(names)
    for prefix in PREFIXES[kind]:
        for layout, keys in SIGNATURE_KEYS[kind].items():
            if any(prefix + key in names for key in keys):
                return prefix, layout
    return None


def to_official(kind: str, names: Iterable[str], source: str) -> dict[str, str]:
    """Official name → stored name of every parameter of the part.

    Raises:
        CheckpointError: no part of this kind is there.
    """
    names = list(names)
    found = find_part(kind, names)
    if found is None:
        others = [PARTS[other] for other in PARTS if other != kind and find_part(other, names)]
        if others:
            what = f"{source} holds {' and '.join(others)}"
            raise CheckpointError(what, PARTS[kind], "Check that the file is in the right place")
        raise no_part(source, names, PARTS[kind])
    prefix, layout = found
    table, beside = _table(kind, layout, names), _NOT_PARAMETERS.get(kind)
    own = {name: name[len(prefix) :] for name in names if name.startswith(prefix)}
    return {rename(bare, table): name for name, bare in own.items() if beside is None or not beside.fullmatch(bare)}


def no_part(source: str, names: Iterable[str], needed: str) -> CheckpointError:
    """The error for a file without any of the parts."""
    if any("lora" in name.lower() for name in names):
        fix = "Load the model first, and the LoRA with load_lora or the LoRA node"
        return CheckpointError(f"{source} is a LoRA", needed, fix)
    bare = {name.removeprefix(prefix) for name in names for prefix in PREFIXES["dit"]}
    family = family_of(bare, {})
    if not family.loads:
        return family.refusal(source)
    return CheckpointError(f"{source} is no Wan model part", needed, "Check that the file is in the right place")


def rename(name: str, table: tuple[Rule, ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _table(kind: str, layout: str, names: list[str]) -> tuple[Rule, ...]:
    if (kind, layout) == ("vae", "diffusers"):
        return _VAE22 if any(".downsampler." in name for name in names) else _VAE21
    return _TABLES.get((kind, layout), ())
