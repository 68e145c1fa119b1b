"""LoRA files of every layout against merging by hand."""

import pytest
import torch
from safetensors.torch import save_file

from tests.support import lora_files
from tests.support.lora_files import LAYOUTS, MODULES, written
from wan_core import WanPipeline
from wan_core.checkpoints import load_dit
from wan_core.errors import CheckpointError, InputError
from wan_core.lora.file import AppliedLora, read_lora


@pytest.fixture(scope="module")
def folder(official_folder):
    return official_folder() / "high_noise_model"


def halves(folder, rank=4, seed=0):
    return lora_files.halves(load_dit(folder).state_dict(), rank, seed)


def inputs():
    torch.manual_seed(1)
    return torch.randn(1, 16, 3, 4, 6), torch.tensor([700]), torch.randn(1, 5, 64)


def merged(folder, deltas):
    model = load_dit(folder)
    for name, delta in deltas.items():
        model.get_parameter(name).data = model.get_parameter(name) + delta
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_equals_merging_by_hand(folder, layout):
    parts = halves(folder)
    state, scale = written(layout, parts)
    model = load_dit(folder)
    plain = model(*inputs())
    applied = AppliedLora(model, read_lora(state, model), 0.7)
    expected = merged(folder, {f"{m}.weight": 0.7 * scale * b @ a for m, (a, b) in parts.items()})(*inputs())
    assert torch.allclose(model(*inputs()), expected, atol=1e-5) and not torch.allclose(plain, expected, atol=1e-3)
    assert str(applied.report) == f"the state dict: {len(state)} of {len(state)} tensors applied"
    applied.remove()
    assert torch.equal(model(*inputs()), plain)


def test_whole_changes_of_weights_biases_norms_modulation_and_head(folder):
    state, deltas = lora_files.whole(load_dit(folder).state_dict())
    model = load_dit(folder)
    AppliedLora(model, read_lora(state, model))
    assert torch.allclose(model(*inputs()), merged(folder, deltas)(*inputs()), atol=1e-5)


def test_several_add_up_and_come_out_in_reverse(folder):
    model, first, second = load_dit(folder), halves(folder, seed=3), halves(folder, seed=4)
    plain = model(*inputs())
    one = AppliedLora(model, read_lora(written("peft", first)[0], model))
    with_one = model(*inputs())
    two = AppliedLora(model, read_lora(written("peft", second)[0], model), -0.5)
    expected = merged(
        folder, {f"{m}.weight": first[m][1] @ first[m][0] - 0.5 * second[m][1] @ second[m][0] for m in MODULES}
    )
    assert torch.allclose(model(*inputs()), expected(*inputs()), atol=1e-5)
    two.remove()
    assert torch.equal(model(*inputs()), with_one)
    one.remove()
    assert torch.equal(model(*inputs()), plain)


def test_what_does_not_apply_is_counted_and_named(folder):
    state = written("peft", halves(folder))[0] | {
        "diffusion_model.blocks.9.self_attn.q.lora_A.weight": torch.zeros(4, 128),
        "something.else": torch.zeros(2),
        "diffusion_model.blocks.0.self_attn.k.lora_A.weight": torch.zeros(4, 128),  # its other half is missing
        "diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight": torch.zeros(4, 128),
    }
    model = load_dit(folder)
    line = str(AppliedLora(model, read_lora(state, model)).report)
    assert (
        line.startswith("the state dict: 8 of 12 tensors applied, 3 unknown: ")
        and "1 of the Wan2.1 image branch skipped" in line
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda state: {f"lora_te_{key}": value for key, value in state.items()},
            "none of the 8 tensors.*applies.*lora_te",
        ),
        (
            lambda state: {key: value.new_zeros(4, 3072) if "lora_A" in key else value for key, value in state.items()},
            "3072.*another base",
        ),
    ],
)
def test_a_lora_of_something_else_is_refused(folder, change, message):
    model = load_dit(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        AppliedLora(model, read_lora(change(written("peft", halves(folder))[0]), model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and len(before) == len(
        model.state_dict()
    )


SMALL = dict(height=32, width=48, num_frames=5, num_inference_steps=4, seed=1)


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(
    "name, expert, changed",
    [
        ("style_high_noise.safetensors", None, ["high"]),
        ("style_low_noise.safetensors", None, ["low"]),
        ("style.safetensors", None, ["high", "low"]),
        ("style_high_noise.safetensors", "low", ["low"]),
        ("style.safetensors", "both", ["high", "low"]),
    ],
)
def test_the_pipeline_gives_it_to_the_right_expert(official_folder, folder, tmp_path, name, expert, changed, offload):
    save_file(written("lightx2v", halves(folder))[0], tmp_path / name)
    pipe = WanPipeline.from_pretrained(official_folder())
    if offload:
        pipe.enable_model_cpu_offload()
    plain = pipe("a cat", **SMALL).latents
    assert len(pipe.load_lora(tmp_path / name, expert, 0.5)) == len(changed)
    has = [
        who
        for who, model in (("high", pipe.high), ("low", pipe.low))
        if any("lora" in key for key in model.state_dict())
    ]
    assert has == changed and not torch.equal(pipe("a cat", **SMALL).latents, plain)
    pipe.unload_loras()
    assert torch.equal(pipe("a cat", **SMALL).latents, plain)


def test_a_file_with_both_experts_gives_each_its_own(official_folder, folder, tmp_path):
    first, second = (written("diffusers", halves(folder, seed=seed))[0] for seed in (5, 6))
    save_file(
        first | {key.replace("transformer.", "transformer_2."): value for key, value in second.items()},
        tmp_path / "pair.safetensors",
    )
    pipe = WanPipeline.from_pretrained(official_folder())
    reports = pipe.load_lora(tmp_path / "pair.safetensors")
    assert [report.applied for report in reports] == [8, 8]
    assert torch.equal(
        pipe.low.blocks[0].self_attn.q.lora[0].down, second["transformer.blocks.0.attn1.to_q.lora_A.weight"]
    )


def test_an_expert_that_is_not_there(official_folder, tmp_path):
    pipe = WanPipeline.from_pretrained(official_folder("ti2v-5b"))
    with pytest.raises(InputError, match="low.*high or both"):
        pipe.load_lora(tmp_path / "x.safetensors", "low")


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


@pytest.mark.parametrize("part, kind", [("lokr_w1", "LoKr"), ("hada_w1_a", "LoHa"), ("oft_blocks", "OFT")])
def test_files_that_are_no_lora_are_called_what_they_are(folder, part, kind):
    with pytest.raises(CheckpointError, match=f"is a {kind}.*own LoRA loader"):
        read_lora({f"diffusion_model.{m}.{part}": torch.zeros(4, 4) for m in MODULES}, load_dit(folder))
    state = written("lightx2v", halves(folder))[0]
    dora = {f"diffusion_model.{m}.dora_scale": torch.ones(4) for m in MODULES[:1]}
    report = read_lora(state | dora, load_dit(folder)).report  # without its scale that module would be changed wrongly
    assert report.applied == 9 and len(report.unknown) == 4


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
    with pytest.raises(CheckpointError, match="damaged.*self_attn.q"):
        read_lora(written("lightx2v", halves(folder))[0] | spoil, load_dit(folder))


@pytest.mark.parametrize(
    "name, metadata, expert, doubt",
    [
        ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise", {}, "high", ""),
        ("style", {}, "high", ""),
        ("ti2v", {}, "high", ""),
        (
            "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise",
            {},
            "low",
            "made for image-to-video, and this is a model for text-to-video",
        ),
        ("Wan21_T2V_14B_lightx2v_rank64", {}, "high", "made for Wan 2.1, and this is a model for Wan 2.2"),
        ("Wan21_T2V_14B_lightx2v_rank64", {}, None, ""),
        ("style", {"ss_base_model_version": "wan2.1"}, "low", "made for Wan 2.1"),
        ("style", {"modelspec.architecture": "wan2.1/lora"}, "low", ""),
        ("style", {"modelspec.architecture": "wan2.1-i2v-14b/lora"}, "low", "made for image-to-video"),
        ("t2v_and_i2v", {}, "high", ""),
    ],
)
def test_what_a_file_says_of_its_base_is_compared(folder, tmp_path, name, metadata, expert, doubt):
    save_file(written("lightx2v", halves(folder))[0], tmp_path / f"{name}.safetensors", metadata)
    base_warnings = read_lora(tmp_path / f"{name}.safetensors", load_dit(folder), expert).report.base_warnings
    assert len(base_warnings) == bool(doubt) and all(
        doubt in sentence and name in sentence for sentence in base_warnings
    )


def test_the_base_is_named_where_its_width_is_known(folder):
    state = {
        "blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 3072),
        "blocks.0.self_attn.q.lora_B.weight": torch.zeros(3072, 2),
    }
    with pytest.raises(
        CheckpointError,
        match=r"\(3072, 3072\) \(the 5B\).*\(5120, 5120\), as in this model \(a 14B model\).*another base",
    ):
        read_lora(state, {"blocks.0.self_attn.q.weight": (5120, 5120)})


def test_numbers_that_are_none_are_refused(tmp_path, official_folder):
    model = load_dit(official_folder() / "high_noise_model")
    name = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{name}.lora_down.weight": torch.full((2, 128), torch.nan), f"{name}.lora_up.weight": torch.ones(128, 2)}
    with pytest.raises(CheckpointError, match="NaN or infinity.*blocks.0.self_attn.q"):
        read_lora(lora, model)


def test_a_clip_says_which_loras_made_it(tmp_path, official_folder, caplog):
    pipe, path = WanPipeline.from_pretrained(official_folder()), tmp_path / "style_high_noise.pt"
    name = "diffusion_model.blocks.0.self_attn.q"
    lora = {
        f"{name}.lora_down.weight": torch.ones(2, 128),
        f"{name}.lora_up.weight": torch.ones(128, 2),
        "diffusion_model.other.diff": torch.ones(2),
    }
    torch.save(lora, path)
    pipe.load_lora(path, strength=0.7)
    assert "2 of 3 tensors applied to the high-noise expert, 1 unknown" in caplog.text, (
        "a partly applied one is warned about"
    )
    out = pipe("a cat", height=32, width=48, num_frames=5, num_inference_steps=2, seed=1)
    assert out.request.loras == ("style_high_noise.pt at 0.7 on the high-noise expert",)
    assert "style_high_noise.pt at 0.7" in out.request.metadata()["settings"]
    with pytest.raises(InputError, match="the LoRA is a dict"):
        pipe.load_lora(lora)
