"""LoRAs applied to a transformer and to a pipeline, against merging by hand."""

import pytest
import torch
from safetensors.torch import save_file

from tests.support import lora_files
from tests.support.lora_files import LAYOUTS, MODULES, written
from wan_core import WanPipeline
from wan_core.checkpoints import load_dit
from wan_core.errors import CheckpointError, InputError
from wan_core.lora import AppliedLora, LoraStack, read_lora


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
        noise
        for noise, model in (("high", pipe.high), ("low", pipe.low))
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
    with pytest.raises(InputError, match=r"low.*high or both"):
        pipe.load_lora(tmp_path / "x.safetensors", "low")


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


def test_a_stack_takes_a_file_for_both_experts_or_for_none(folder, tmp_path):
    high, low = load_dit(folder), load_dit(folder)
    low.blocks[1].ffn[2] = torch.nn.Linear(192, 64)  # so that the file fits the high-noise expert alone
    names = [list(model.state_dict()) for model in (high, low)]
    save_file(written("lightx2v", halves(folder))[0], tmp_path / "style.safetensors")
    stack = LoraStack(high, low)
    with pytest.raises(CheckpointError, match="another base"):
        stack.load(tmp_path / "style.safetensors")
    assert stack.notes == () and [list(model.state_dict()) for model in (high, low)] == names
    assert [report.expert for report in stack.load(tmp_path / "style.safetensors", "high", -1)] == ["high"]
    assert stack.notes == ("style.safetensors at -1 on the high-noise expert",)
    stack.unload()
    assert stack.notes == () and list(high.state_dict()) == names[0]
