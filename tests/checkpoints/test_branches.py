"""Transformers with the branches of few families, from files as they are stored."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.support.branches import BRANCHES, conditions, inputs, tiny_dit
from tests.support.goldens import difference
from tests.support.layouts import diffusers_transformer, write_gguf
from wan_core.checkpoints import load_dit
from wan_core.checkpoints.key_maps import to_official
from wan_core.checkpoints.quant import QuantizedTensor
from wan_core.dit import WanDiT
from wan_core.errors import CheckpointError


def diffusers_names(state):
    """The tensors of an image-to-video transformer of Wan2.1 under the names of diffusers."""
    names = to_official("dit", diffusers_transformer(load_dit(state).config).state_dict(), "diffusers")
    return {theirs: state[ours] for ours, theirs in names.items()}


@pytest.mark.parametrize("family", BRANCHES)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_families_with_branches_load(family, prefix, tmp_path):
    model = tiny_dit(family)
    save_file({prefix + name: t for name, t in model.state_dict().items()}, tmp_path / "model.safetensors")
    loaded = load_dit(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert all(torch.equal(loaded.state_dict()[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize("family", ["wan21-i2v", "wan21-flf2v"])
def test_the_image_branch_under_the_names_of_diffusers(family, tmp_path):
    """Their first conversions also hold a norm that nothing uses."""
    model = tiny_dit(family)
    state = diffusers_names(model.state_dict())
    assert "blocks.0.attn2.add_k_proj.weight" in state
    save_file(state | {"blocks.0.attn2.norm_added_q.weight": torch.ones(256)}, tmp_path / "model.safetensors")
    config = {"num_attention_heads": 2, "attention_head_dim": 128, "image_dim": 64, "added_kv_proj_dim": 256}
    config |= {"pos_embed_seq_len": 514} if family == "wan21-flf2v" else {"pos_embed_seq_len": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_dit(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert all(torch.equal(loaded.state_dict()[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize("family, kind", [("wan21-flf2v", "Q8_0"), ("wan21-i2v", "Q4_0"), ("fun-control", "Q8_0")])
def test_branches_in_gguf_stay_quantized(family, kind, tmp_path):
    model = tiny_dit(family)
    dequantized = write_gguf(
        tmp_path / "model.gguf",
        model.state_dict(),
        lambda name, t: kind if t.ndim == 2 and name.startswith(("blocks.", "img_emb.")) else "F32",
    )
    loaded, plain = load_dit(tmp_path / "model.gguf", dtype=torch.float32), WanDiT(model.config).requires_grad_(False)
    plain.load_state_dict(dequantized)
    assert loaded.config == model.config
    layer = loaded.blocks[0].cross_attn
    assert isinstance((layer.v_img if model.config.image_dim else layer.v).weight.data, QuantizedTensor)
    args, given = inputs(family), conditions(family)
    assert difference(loaded(*args, **given), plain(*args, **given)) < 1e-4


@pytest.mark.parametrize("family", ["wan21-flf2v", "fun-control"])
def test_branches_in_scaled_fp8(family, tmp_path):
    model, state, plain = tiny_dit(family), {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}, {}
    for name, value in model.state_dict().items():
        if value.ndim == 2 and name.startswith(("blocks.", "img_emb.")):
            scale = value.abs().max() / 448
            state |= {
                name: (value / scale).to(torch.float8_e4m3fn),
                name.removesuffix("weight") + "scale_weight": scale,
            }
            plain[name] = state[name].float() * scale
        else:
            state[name] = plain[name] = value
    save_file(state, tmp_path / "model.safetensors")
    loaded, reference = load_dit(tmp_path / "model.safetensors", dtype=torch.float32), load_dit(plain)
    args, given = inputs(family), conditions(family)
    assert difference(loaded(*args, **given), reference(*args, **given)) < 1e-4


@pytest.mark.parametrize(
    "family, lost",
    [
        ("wan21-i2v", "img_emb.proj.3.bias"),
        ("wan21-i2v", "blocks.1.cross_attn.norm_k_img.weight"),
        ("fun-control", "ref_conv.bias"),
    ],
)
def test_a_branch_that_lacks_a_tensor(family, lost):
    state = tiny_dit(family).state_dict()
    del state[lost]
    with pytest.raises(CheckpointError, match=f"lacks 1 of .*{lost}"):
        load_dit(state)
