"""What a LoRA file holds: layouts, halves, and what is left out."""

import pytest
import torch

from tests.support import lora_files
from tests.support.lora_files import written
from wan_core.checkpoints import load_dit
from wan_core.errors import CheckpointError
from wan_core.lora import read_lora


def halves(folder, rank=4, seed=0):
    return lora_files.halves(load_dit(folder).state_dict(), rank, seed)


def test_what_does_not_apply_is_counted_and_named(folder):
    state = written("peft", halves(folder))[0] | {
        "diffusion_model.blocks.9.self_attn.q.lora_A.weight": torch.zeros(4, 128),
        "something.else": torch.zeros(2),
        "diffusion_model.blocks.0.self_attn.k.lora_A.weight": torch.zeros(4, 128),  # its other half is missing
        "diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight": torch.zeros(4, 128),
    }
    model = load_dit(folder)
    line = str(read_lora(state, model).report)
    assert (
        line.startswith("the state dict: 8 of 12 tensors applied, 3 unknown: ")
        and "1 of the Wan2.1 image branch skipped" in line
    )


WAN21_IMAGE = {  # what a Wan2.1 image-to-video model has besides: official module → diffusers
    "blocks.0.cross_attn.k_img": "blocks.0.attn2.add_k_proj",
    "blocks.1.cross_attn.v_img": "blocks.1.attn2.add_v_proj",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
}


def test_the_image_branch_of_wan21_is_changed_where_there_is_one(folder):
    sizes = {name: tuple(value.shape) for name, value in load_dit(folder).state_dict().items()}
    sizes |= {f"{module}.weight": (128, 128) for module in WAN21_IMAGE} | {
        f"{m}.{k}": (128,) for m in ("img_emb.proj.0", "img_emb.proj.4") for k in ("weight", "bias")
    }
    sizes["blocks.0.cross_attn.norm_k_img.weight"] = (128,)
    official, diffusers = {}, {}
    for ours, theirs in WAN21_IMAGE.items():
        halves_of = {"lora_A.weight": torch.randn(2, 128), "lora_B.weight": torch.randn(128, 2)}
        official |= {f"diffusion_model.{ours}.{half}": value for half, value in halves_of.items()}
        diffusers |= {f"transformer.{theirs}.{half}": value for half, value in halves_of.items()}
    norms = {
        "blocks.0.cross_attn.norm_k_img": "blocks.0.attn2.norm_added_k",
        "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
        "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    }
    official |= {f"diffusion_model.{name}.diff": torch.ones(128) for name in norms}
    diffusers |= {f"transformer.{name}.diff": torch.ones(128) for name in norms.values()}
    expected = {f"{name}.weight" for name in (*WAN21_IMAGE, *norms)}
    for state in (official, diffusers):
        lora = read_lora(state, sizes)
        assert set(lora.changes) == expected and lora.report.applied == len(state) == 11
    report = read_lora(official | written("peft", halves(folder))[0], load_dit(folder)).report
    assert len(report.skipped) == 11 and report.applied == 8


def test_a_patch_embedding_with_other_input_channels_is_left_alone(folder):
    state = written("peft", halves(folder))[0]
    embedding = {"diffusion_model.patch_embedding.diff": torch.zeros(128, 36, 1, 2, 2)}
    halved = {
        "diffusion_model.patch_embedding.lora_A.weight": torch.zeros(2, 144),
        "diffusion_model.patch_embedding.lora_B.weight": torch.zeros(128, 2),
    }
    for extra in (embedding, halved):
        report = read_lora(state | extra, load_dit(folder)).report
        assert report.applied == 8 and str(report).endswith(
            f"{len(extra)} for other input channels skipped: {', '.join(extra)}"
        )
    both = {
        "diffusion_model.patch_embedding.lora_A.weight": torch.zeros(2, 16, 1, 2, 2),
        "diffusion_model.patch_embedding.lora_B.weight": torch.zeros(128, 2, 1, 1, 1),
    }
    assert "patch_embedding.weight" in read_lora(both, load_dit(folder)).changes


@pytest.mark.parametrize(
    "spoil",
    [
        {"diffusion_model.blocks.0.self_attn.q.lora_up.weight": torch.zeros(128, 3)},
        {"diffusion_model.blocks.0.self_attn.q.alpha": torch.zeros(2)},
        {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.zeros(128)},
        {
            "diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.zeros(0, 128),
            "diffusion_model.blocks.0.self_attn.q.lora_up.weight": torch.zeros(128, 0),
        },
    ],
)
def test_halves_that_do_not_belong_together(folder, spoil):
    with pytest.raises(CheckpointError, match=r"damaged.*self_attn\.q"):
        read_lora(written("lightx2v", halves(folder))[0] | spoil, load_dit(folder))


def test_numbers_that_are_none_are_refused(tmp_path, official_folder):
    model = load_dit(official_folder() / "high_noise_model")
    name = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{name}.lora_down.weight": torch.full((2, 128), torch.nan), f"{name}.lora_up.weight": torch.ones(128, 2)}
    with pytest.raises(CheckpointError, match=r"NaN or infinity.*blocks\.0\.self_attn\.q"):
        read_lora(lora, model)
