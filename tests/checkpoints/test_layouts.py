import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.support.layouts import state_of, write_comfyui_folder, write_layout
from wan_core import WanPipeline
from wan_core.checkpoints import (
    find_model,
    inspect,
    load_dit,
    load_image_encoder,
    load_text_encoder,
    load_vae,
    open_tokenizer,
)
from wan_core.config import PRESETS
from wan_core.errors import CheckpointError, CheckpointNotFound
from wan_core.testing import tiny_preset

WITH_CLIP = ("wan21-i2v-14b-720p", "wan21-flf2v-14b")
NAMES = ("t2v-a14b", "i2v-a14b", "ti2v-5b", "vace-a14b", "wan21-t2v-14b", "wan21-vace-14b", *WITH_CLIP)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
@pytest.mark.parametrize("name", NAMES)
def test_every_layout_holds_the_same_model(layout, name, official_folder, tmp_path):
    official = find_model(official_folder(name))
    other = find_model(write_layout(layout, tmp_path, official_folder(name), name))
    assert (official.layout, other.layout) == ("official", layout)
    pairs = [(load_dit, "high"), (load_vae, "vae"), (load_text_encoder, "text_encoder")]
    if tiny_preset(name).two_experts:
        pairs.append((load_dit, "low"))
    else:
        assert official.low is other.low is None
    if name in WITH_CLIP:
        pairs.append((load_image_encoder, "image_encoder"))
    else:
        assert official.image_encoder is other.image_encoder is None
    for load, part in pairs:
        a, b = load(getattr(official, part)), load(getattr(other, part))
        assert a.config == b.config, part
        assert all(torch.equal(t, b.state_dict()[key]) for key, t in a.state_dict().items()), part
    prompt = "a red circle 猫"
    assert torch.equal(open_tokenizer(official.tokenizer)(prompt)[0], open_tokenizer(other.tokenizer)(prompt)[0])
    assert other.boundary == (PRESETS[name].boundary if layout == "diffusers" else None)


@pytest.mark.parametrize("layout", ["official", "diffusers", "comfyui"])
@pytest.mark.parametrize("name", NAMES)
def test_inspect_names_the_model_from_headers(layout, name, official_folder, tmp_path):
    info = inspect(write_layout(layout, tmp_path / "model", official_folder(name), name))
    assert (info.family, info.layout) == (name, layout)
    kinds = ["dit"] * (1 + tiny_preset(name).two_experts) + ["vae", "text_encoder"]
    assert [part.kind for part in info.parts] == kinds + ["image_encoder"] * (name in WITH_CLIP)
    assert info.parts[0].config == tiny_preset(name).dit
    text = str(info)
    assert name in text and "fp32" in text and "bf16" in text and f"Wan{tiny_preset(name).vae.version} VAE" in text


def test_inspect_of_single_parts(official_folder, tmp_path):
    folder = official_folder("i2v-a14b")
    assert "image-to-video" in inspect(folder / "high_noise_model").family
    assert inspect(folder / "Wan2.1_VAE.pth").kind == "vae"
    comfy = write_comfyui_folder(tmp_path, folder, tiny_preset("i2v-a14b"), prefix="model.diffusion_model.")
    part = inspect(comfy / "diffusion_models" / "wan2.2_high_noise_14B_fp16.safetensors")
    assert part.layout == "comfyui" and part.config == tiny_preset("i2v-a14b").dit


def test_prefixed_single_files_load(official_folder, tmp_path):
    comfy = write_comfyui_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b"), prefix="model.diffusion_model.")
    a = load_dit(comfy / "diffusion_models" / "wan2.2_low_noise_14B_fp16.safetensors").state_dict()
    b = load_dit(official_folder() / "low_noise_model").state_dict()
    assert all(torch.equal(a[key], b[key]) for key in b)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: (d / "wan2.2_low_noise_14B_fp16.safetensors").unlink(), "no low-noise expert"),
        (lambda d: (d / "wan2.2_low_noise_14B_fp16.safetensors").rename(d / "b.safetensors"), "'high' and 'low'"),
        (lambda d: [f.unlink() for f in d.iterdir()], "no diffusion transformer.*docs/python.md"),
    ],
)
def test_comfyui_folders_that_are_ambiguous_or_incomplete(official_folder, tmp_path, change, message):
    comfy = write_comfyui_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b"))
    change(comfy / "diffusion_models")
    with pytest.raises(CheckpointError, match=message):
        find_model(comfy)


def test_high_and_low_are_told_by_their_names(official_folder, tmp_path):
    comfy = write_comfyui_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b"))
    folder = comfy / "diffusion_models"
    (folder / "wan2.2_high_noise_14B_fp16.safetensors").rename(folder / "Wan2_2-T2V-A14B_HIGH_bf16.safetensors")
    (folder / "wan2.2_low_noise_14B_fp16.safetensors").rename(folder / "Wan2_2-T2V-A14B-LOW_bf16.safetensors")
    found = find_model(comfy)
    assert "HIGH" in found.high.name and "LOW" in found.low.name


@pytest.mark.parametrize(
    "high, low",
    [
        ("Wan2.2-T2V-HighNoise.safetensors", "Wan2.2-T2V-LowNoise.safetensors"),
        ("high.safetensors", "low.safetensors"),
        ("high_noise/model.safetensors", "low_noise/model.safetensors"),
        ("wan_slow_high_noise.safetensors", "wan_slow_low_noise.safetensors"),
    ],
)
def test_names_that_people_give_the_pair(official_folder, tmp_path, high, low):
    folder = write_comfyui_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b")) / "diffusion_models"
    for word, name in (("high", high), ("low", low)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"wan2.2_{word}_noise_14B_fp16.safetensors").rename(folder / name)
    found = find_model(tmp_path)
    assert (found.high, found.low) == (folder / high, folder / low)


def test_an_official_5b_folder_without_shards(official_folder, tmp_path):
    from safetensors.torch import save_file

    source = official_folder("ti2v-5b")
    save_file(state_of(source, "dit"), tmp_path / "diffusion_pytorch_model.safetensors")
    save_file(state_of(source / "Wan2.2_VAE.pth", "vae"), tmp_path / "Wan2.2_VAE.safetensors")
    save_file(
        state_of(source / "models_t5_umt5-xxl-enc-bf16.pth", "text_encoder"),
        tmp_path / "models_t5_umt5-xxl-enc-bf16.safetensors",
    )
    shutil.copy(source / "config.json", tmp_path)
    shutil.copytree(source / "google", tmp_path / "google")
    assert inspect(tmp_path).family == "ti2v-5b"
    assert WanPipeline.from_pretrained(tmp_path).low is None


def test_a_comfyui_text_encoder_without_its_tokenizer(official_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    comfy = write_comfyui_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b"))
    path = comfy / "text_encoders" / "umt5_xxl_fp16.safetensors"
    state = load_file(path)
    del state["spiece_model"]
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"holds no tokenizer.*spiece_model"):
        open_tokenizer(find_model(comfy).tokenizer)


def test_diffusers_index_that_contradicts_itself(official_folder, tmp_path):
    import json

    folder = write_layout("diffusers", tmp_path, official_folder(), "t2v-a14b")
    index = json.loads((folder / "model_index.json").read_text())
    without = {key: value for key, value in index.items() if key != "boundary_ratio"}
    (folder / "model_index.json").write_text(json.dumps(without))
    assert find_model(folder).boundary is None, "the preset's boundary serves"
    (folder / "model_index.json").write_text(json.dumps(index | {"transformer_2": [None, None]}))
    with pytest.raises(CheckpointError, match=r"one transformer and a boundary_ratio of 0.875"):
        find_model(folder)


def test_an_all_in_one_checkpoint_holds_every_part(official_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    comfy = write_comfyui_folder(tmp_path / "parts", official_folder("ti2v-5b"), tiny_preset("ti2v-5b"))
    prefixes = {
        "diffusion_models": "model.diffusion_model.",
        "vae": "vae.",
        "text_encoders": "text_encoders.umt5xxl.transformer.",
    }
    state = {}
    for folder, prefix in prefixes.items():
        (file,) = (comfy / folder).iterdir()
        state |= {prefix + name: t for name, t in load_file(file).items()}
    (tmp_path / "one").mkdir()
    save_file(state, tmp_path / "one" / "all.safetensors")
    found = find_model(tmp_path / "one")
    assert load_dit(found.high).config == tiny_preset("ti2v-5b").dit
    assert load_vae(found.vae).config == tiny_preset("ti2v-5b").vae
    assert load_text_encoder(found.text_encoder).config == tiny_preset("ti2v-5b").text
    assert open_tokenizer(found.tokenizer)("a cat")[0].shape[0] == 1


def test_inspect_of_something_else(tmp_path):
    with pytest.raises(CheckpointNotFound):
        inspect(tmp_path / "nothing")


def test_a_comfyui_folder_with_both_vaes_gives_each_model_its_own(official_folder, tmp_path):
    write_comfyui_folder(tmp_path, official_folder("ti2v-5b"), tiny_preset("ti2v-5b"))
    (tmp_path / "diffusion_models" / "wan2.2_5B_fp16.safetensors").unlink()
    write_comfyui_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b"))
    (tmp_path / "config.json").write_text('{"a": 1}')  # of another program
    assert len(list((tmp_path / "vae").iterdir())) == 2
    assert find_model(tmp_path).vae.name == "wan_2.1_vae.safetensors"


@pytest.mark.parametrize(
    "change", [{"transformer_2": ["a"]}, {"transformer_2": 5}, {"boundary_ratio": "x"}, {"boundary_ratio": 1.5}]
)
def test_a_model_index_that_makes_no_sense(official_folder, tmp_path, change):
    folder = write_layout("diffusers", tmp_path, official_folder(), "t2v-a14b")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(CheckpointError, match=r"transformer_2.*boundary_ratio"):
        find_model(folder)


def test_a_lora_in_place_of_a_model(tmp_path):
    path = tmp_path / "style.safetensors"
    save_file({"diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.ones(2, 4)}, path)
    for use in (inspect, load_dit, load_vae):
        with pytest.raises(CheckpointError, match=r"is a LoRA.*load_lora"):
            use(path)
