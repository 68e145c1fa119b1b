"""What a folder is, a whole model or one part of it: `inspect` and `from_pretrained` take it for the same."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.layouts import write_comfyui_folder, write_gguf_folder, write_layout
from wan_core import WanPipeline
from wan_core.checkpoints import FolderInfo, inspect, load_dit, load_vae
from wan_core.testing import tiny_preset

CLIP_VISION = {
    "vision_model.embeddings.position_embedding.weight": torch.zeros(257, 1280),
    "vision_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(8, 1280),
}


@pytest.fixture(scope="module")
def single_files(official_folder, tmp_path_factory):
    """Family → a ComfyUI folder; copied by who changes it."""
    made = {}

    def folder(name):
        if name not in made:
            target = tmp_path_factory.mktemp(name)
            made[name] = write_comfyui_folder(target, official_folder(name), tiny_preset(name))
        return made[name]

    return folder


def check_is_model(folder, family):
    info = inspect(folder)
    assert isinstance(info, FolderInfo) and (info.layout, info.family) == ("comfyui", family)
    pipe = WanPipeline.from_pretrained(folder)
    assert info.parts[0].config == pipe.high.config
    assert pipe.preset.name == family


@pytest.mark.parametrize("moved", ["diffusion_models", "vae", "text_encoders"])
def test_one_file_at_the_root_beside_the_folders_of_the_others(single_files, tmp_path, moved):
    folder = shutil.copytree(single_files("ti2v-5b"), tmp_path / "model")
    (file,) = (folder / moved).iterdir()
    file.rename(folder / file.name)
    check_is_model(folder, "ti2v-5b")


def test_a_clip_vision_file_at_the_root(single_files, tmp_path):
    folder = shutil.copytree(single_files("i2v-a14b"), tmp_path / "model")
    save_file(CLIP_VISION, folder / "clip_vision_h.safetensors")
    check_is_model(folder, "i2v-a14b")


@pytest.mark.parametrize("flat", [True, False])
def test_gguf_experts_with_a_vae_in_safetensors(official_folder, tmp_path, flat):
    folder = write_gguf_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b"))
    for file in [path for path in folder.rglob("*") if path.is_file() and (flat or path.suffix == ".safetensors")]:
        file.rename(folder / file.name)
    assert len(list(folder.glob("*.safetensors"))) == 1
    check_is_model(folder, "t2v-a14b")


def test_an_all_in_one_file_by_itself_is_a_model(single_files, tmp_path):
    prefixes = {"diffusion_models": "model.diffusion_model.", "vae": "vae."}
    prefixes["text_encoders"] = "text_encoders.umt5xxl.transformer."
    state = {}
    for name, prefix in prefixes.items():
        (file,) = (single_files("ti2v-5b") / name).iterdir()
        state |= {prefix + key: tensor for key, tensor in load_file(file).items()}
    save_file(state, tmp_path / "all.safetensors")
    check_is_model(tmp_path, "ti2v-5b")


@pytest.mark.parametrize("part", ["transformer", "transformer_2", "vae", "text_encoder"])
def test_every_folder_of_a_diffusers_model_is_a_part(official_folder, tmp_path, part):
    folder = write_layout("diffusers", tmp_path, official_folder(), "t2v-a14b") / part
    assert inspect(folder).kind == {"vae": "vae", "text_encoder": "text_encoder"}.get(part, "dit")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".gguf"])
def test_a_folder_with_one_file_is_a_part(official_folder, tmp_path, suffix):
    if suffix == ".gguf":
        folder = write_gguf_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b")) / "diffusion_models"
        (folder / "wan2.2_low_noise_14B_fp16.gguf").unlink()
        load, kind = load_dit, "dit"
    else:
        folder, load, kind = tmp_path, load_vae, "vae"
        vae = shutil.copy(official_folder() / "Wan2.1_VAE.pth", folder)
        if suffix == ".safetensors":
            save_file(load_vae(vae).state_dict(), folder / "vae.safetensors")
            (folder / "Wan2.1_VAE.pth").unlink()
    assert inspect(folder).kind == kind and inspect(folder).config == load(folder).config


def test_a_config_of_a_text_encoder_makes_no_official_folder(single_files, tmp_path):
    folder = shutil.copytree(single_files("t2v-a14b"), tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "umt5", "d_model": 4096, "num_heads": 64, "num_layers": 24}')
    check_is_model(folder, "t2v-a14b")
