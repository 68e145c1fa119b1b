"""LoRAs for the layers that few families have: the image branch of Wan2.1, and Fun-Control's reference."""

import pytest
import torch

from tests.support.branches import conditions, inputs, tiny_dit
from tests.support.goldens import difference
from wan_core.lora import AppliedLora, read_lora

NAMES = {  # official module → as a trainer writes it
    "official": {
        "blocks.1.cross_attn.k_img": "diffusion_model.blocks.1.cross_attn.k_img",
        "blocks.0.cross_attn.v_img": "diffusion_model.blocks.0.cross_attn.v_img",
        "img_emb.proj.3": "diffusion_model.img_emb.proj.3",
    },
    "diffusers": {
        "blocks.1.cross_attn.k_img": "transformer.blocks.1.attn2.add_k_proj",
        "blocks.0.cross_attn.v_img": "transformer.blocks.0.attn2.add_v_proj",
        "img_emb.proj.3": "transformer.condition_embedder.image_embedder.ff.net.2",
    },
    "kohya": {
        "blocks.1.cross_attn.k_img": "lora_unet_blocks_1_cross_attn_k_img",
        "img_emb.proj.3": "lora_unet_img_emb_proj_3",
    },
    "a convolution": {"ref_conv": "diffusion_model.ref_conv"},
}


@pytest.mark.parametrize("layout", NAMES)
def test_a_lora_equals_merging_by_hand(layout):
    family = "fun-control" if layout == "a convolution" else "wan21-flf2v"
    model, by_hand, args, given = tiny_dit(family), tiny_dit(family), inputs(family), conditions(family)
    torch.manual_seed(3)
    state = {}
    for module, theirs in NAMES[layout].items():
        weight = by_hand.get_parameter(f"{module}.weight")
        down = 0.1 * torch.randn(4, *weight.shape[1:])
        up = 0.1 * torch.randn(len(weight), 4, *[1] * (weight.ndim - 2))
        state |= {f"{theirs}.lora_down.weight": down, f"{theirs}.lora_up.weight": up}
        weight.data = weight + 0.7 * (up.flatten(1) @ down.flatten(1)).view(weight.shape)
    plain = model(*args, **given)
    applied = AppliedLora(model, read_lora(state, model), 0.7)
    assert not applied.report.skipped and not applied.report.unknown
    assert difference(model.session()(*args, **given), by_hand(*args, **given)) < 1e-5
    assert difference(by_hand(*args, **given), plain) > 1e-3
    applied.remove()
    assert torch.equal(model(*args, **given), plain)
