"""Folders of weights: variants, what the system leaves there, and folders that hold no model."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.layouts import diffusers_transformer, huggingface_text_encoder, write_comfyui_folder, write_layout
from wan_core import WanPipeline
from wan_core.checkpoints import find_model, inspect, load_dit, load_text_encoder, open_model
from wan_core.checkpoints.formats import open_weights, weight_files, weights_below
from wan_core.errors import CheckpointError, CheckpointNotFound
from wan_core.testing import tiny_preset

PRESET = tiny_preset("t2v-a14b")
WHOLE, SHARDS = "10GB", "1MB"


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(1)
    return diffusers_transformer(PRESET.dit)


def loaded(folder: Path) -> torch.Tensor:
    assert inspect(folder).kind == "dit"
    return load_dit(folder).patch_embedding.weight


@pytest.mark.parametrize("size", [WHOLE, SHARDS])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_variant_by_itself_loads(transformer, tmp_path, size, safe):
    transformer.save_pretrained(tmp_path, variant="fp16", max_shard_size=size, safe_serialization=safe)
    assert (len(list(tmp_path.glob("*fp16*"))) > 2) == (size == SHARDS)
    assert torch.equal(loaded(tmp_path), transformer.patch_embedding.weight)


def test_the_older_name_of_a_variants_index(transformer, tmp_path):
    transformer.save_pretrained(tmp_path, variant="fp16", max_shard_size=SHARDS)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.rename(tmp_path / "diffusion_pytorch_model.safetensors.fp16.index.json")
    assert torch.equal(loaded(tmp_path), transformer.patch_embedding.weight)


@pytest.mark.parametrize("plain_size", [WHOLE, SHARDS])
@pytest.mark.parametrize("variant_size", [WHOLE, SHARDS])
def test_a_plain_file_comes_before_a_variant_as_in_diffusers(transformer, tmp_path, plain_size, variant_size):
    torch.manual_seed(2)
    diffusers_transformer(PRESET.dit).save_pretrained(tmp_path, variant="fp16", max_shard_size=variant_size)
    variant = {path: path.read_bytes() for path in tmp_path.iterdir()}
    transformer.save_pretrained(tmp_path, max_shard_size=plain_size)
    for path, content in variant.items():  # which the second call cleans up
        path.write_bytes(content)
    chosen = type(transformer).from_pretrained(tmp_path)
    assert torch.equal(chosen.patch_embedding.weight, transformer.patch_embedding.weight)
    assert torch.equal(loaded(tmp_path), chosen.patch_embedding.weight)


def test_a_variant_of_transformers(tmp_path):
    encoder = huggingface_text_encoder(PRESET.text)
    encoder.save_pretrained(tmp_path, variant="fp16", max_shard_size="200KB")
    assert (tmp_path / "model.safetensors.index.fp16.json").is_file()
    own = load_text_encoder(tmp_path).state_dict()["blocks.0.attn.q.weight"]
    assert torch.equal(own, encoder.encoder.block[0].layer[0].SelfAttention.q.weight)


def test_two_variants_and_nothing_plain(transformer, tmp_path):
    for variant in ("bf16", "fp16"):
        transformer.save_pretrained(tmp_path / variant, variant=variant, max_shard_size=SHARDS)
        shutil.copytree(tmp_path / variant, tmp_path / "both", dirs_exist_ok=True)
    for use in (load_dit, inspect):
        with pytest.raises(CheckpointError, match=r"as bf16, fp16\. Needed: one of them"):
            use(tmp_path / "both")


@pytest.mark.slow
def test_a_whole_folder_of_variants_is_a_model(official_folder, tmp_path):
    plain = write_layout("diffusers", tmp_path / "plain", official_folder(), "t2v-a14b")
    from diffusers import WanPipeline as Reference

    Reference.from_pretrained(plain).save_pretrained(tmp_path / "fp16", variant="fp16", max_shard_size="1MB")
    assert (tmp_path / "fp16/transformer_2/diffusion_pytorch_model.safetensors.index.fp16.json").is_file()
    assert inspect(tmp_path / "fp16").family == "t2v-a14b"
    pipes = [WanPipeline.from_pretrained(folder, torch.float32) for folder in (plain, tmp_path / "fp16")]
    assert torch.equal(*(pipe.low.head.head.weight for pipe in pipes))


def test_what_macos_leaves_beside_every_file_is_ignored(official_folder, tmp_path):
    layouts = [official_folder(), write_layout("diffusers", tmp_path / "diffusers", official_folder(), "t2v-a14b")]
    layouts.append(write_comfyui_folder(tmp_path / "comfyui", official_folder(), PRESET))
    for source in layouts:
        folder = shutil.copytree(source, tmp_path / "copies" / source.name)
        expected = open_model(folder)
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            file.with_name(f"._{file.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
            (file.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
            (file.parent / ".cache").mkdir(exist_ok=True)
            (file.parent / ".cache" / "other.safetensors").write_bytes(b"\0")
        found = open_model(folder)
        assert [found.high.source, found.vae.source] == [expected.high.source, expected.vae.source]
        assert inspect(folder).family == "t2v-a14b"
    part = shutil.copytree(official_folder() / "low_noise_model", tmp_path / "part")
    for file in list(part.iterdir()):
        file.with_name(f"._{file.name}").write_bytes(b"\0")
    assert load_dit(part).config == inspect(part).config == PRESET.dit


@pytest.mark.slow
def test_a_large_tree_is_left_after_ten_thousand_files(tmp_path):
    for n in range(70):
        (tmp_path / f"{n:02}").mkdir()
        for k in range(150):
            (tmp_path / f"{n:02}" / f"{k}.txt").touch()
    for use in (inspect, open_model, find_model):
        with pytest.raises(CheckpointError, match=r"more than 10,000 files .*the folder of one model"):
            use(tmp_path)


def test_a_thousand_weight_files_are_no_model(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "0.safetensors")
    for n in range(1, 1002):
        os.link(tmp_path / "0.safetensors", tmp_path / f"{n}.safetensors")
    with pytest.raises(CheckpointError, match=r"1,000 weight files"):
        inspect(tmp_path)


def test_a_deep_tree_is_left_after_eight_folders(tmp_path):
    (tmp_path / "/".join("abcdefgh")).mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"8 folders inside one another.*Give that folder itself"):
        inspect(tmp_path)
    (tmp_path / "/".join("abcdefgh")).rmdir()
    with pytest.raises(CheckpointNotFound, match="no diffusion transformer"):
        inspect(tmp_path)


def test_links_in_a_circle_are_not_followed(official_folder, tmp_path):
    folder = write_comfyui_folder(tmp_path / "model", official_folder(), PRESET)
    (folder / "vae" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "vae" / "self").symlink_to(folder / "vae" / "self")
    assert len(weights_below(folder)) == 4 and inspect(folder).family == "t2v-a14b"


@contextmanager
def as_nobody():
    """Without the rights of the superuser, who may read everything."""
    if not hasattr(os, "seteuid"):
        pytest.skip("no users of this kind on this system")
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.fixture
def readable():
    """A folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "names alone"])
def test_a_folder_that_may_not_be_read(readable, mode):
    folder = readable / "model"
    folder.mkdir()
    save_file({"a": torch.ones(1)}, folder / "a.safetensors")
    folder.chmod(mode)
    with as_nobody():
        for use in (inspect, open_model, open_weights, WanPipeline.from_pretrained):
            for path in (readable, folder) if use is inspect else (folder,):
                with pytest.raises(CheckpointError, match="Permission denied"):
                    use(path)


@pytest.mark.parametrize("closed", ["google", "google/umt5-xxl", "google/umt5-xxl/spiece.model"])
def test_a_tokenizer_that_may_not_be_read(official_folder, readable, closed):
    folder = shutil.copytree(official_folder(), readable / "model")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    (folder / closed).chmod(0)
    with as_nobody(), pytest.raises(CheckpointError, match="umt5-xxl.*Permission denied"):
        inspect(folder)


def test_a_file_among_others_is_taken_by_what_it_is_called(tmp_path):
    state = {"a": torch.ones(1)}
    for name in ("diffusion_pytorch_model.safetensors", "Wan2.2_VAE.safetensors"):  # as in the 5B release
        save_file(state, tmp_path / name)
    assert [file.name for file in weight_files(tmp_path)] == ["diffusion_pytorch_model.safetensors"]
    (tmp_path / "diffusion_pytorch_model.safetensors").rename(tmp_path / "wan.safetensors")
    with pytest.raises(CheckpointNotFound, match=r"Wan2.2_VAE.safetensors, wan.safetensors in"):
        weight_files(tmp_path)
    assert load_file(tmp_path / "wan.safetensors").keys() == state.keys()


def test_a_plain_pickle_comes_before_the_shards_of_a_variant(transformer, tmp_path):
    transformer.save_pretrained(tmp_path, variant="fp16", max_shard_size=SHARDS)
    (tmp_path / "diffusion_pytorch_model.bin").touch()
    assert weight_files(tmp_path) == [tmp_path / "diffusion_pytorch_model.bin"]
