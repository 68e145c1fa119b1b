import importlib.util
import random
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from scripts.demo_model.clips import SCENES, clip
from scripts.demo_model.text import captions
from tests.support.layouts import write_comfyui_folder, write_gguf_folder
from tests.support.small_clips import picture
from wan_core.checkpoints import load_dit, load_vae
from wan_core.cli import BAD_INPUT, BAD_MODEL, OK, main
from wan_core.testing import tiny_preset
from wan_core.video import export_to_video


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rng = random.Random(0)
    for k, scene in enumerate(rng.sample(SCENES, 2)):
        video = clip(scene, rng)[0]
        export_to_video((video.permute(1, 2, 3, 0) + 1) / 2, folder / f"{k}.mp4")
        (folder / f"{k}.txt").write_text("\n".join(captions(scene)), "utf-8")
    return folder


NUMBERS = ["--width", "32", "--height", "32", "--frames", "5", "--steps", "2", "--batch", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["t2v-a14b", "i2v-a14b"])
def test_an_expert(official_folder, clips, tmp_path, model):
    arguments = [
        "train",
        "expert",
        str(official_folder(model)),
        str(clips),
        "--out",
        str(tmp_path),
        "--expert",
        "low",
        *NUMBERS,
    ]
    assert main(arguments) == OK
    trained = load_dit(tmp_path / "expert_low.safetensors")
    assert trained.config.in_channels == (36 if model == "i2v-a14b" else 16)
    assert main(arguments) == OK  # the encoded clips are read again


def test_a_lora(official_folder, clips, tmp_path, capfd):
    arguments = [
        "train",
        "lora",
        str(official_folder()),
        str(clips),
        "--out",
        str(tmp_path),
        "--expert",
        "high",
        "--rank",
        "2",
    ]
    assert main([*arguments, *NUMBERS]) == OK
    assert "lora_high.safetensors" in capfd.readouterr().out
    state = load_file(tmp_path / "lora_high.safetensors")
    assert state["diffusion_model.blocks.0.self_attn.q.lora_down.weight"].shape == (2, 128)


@pytest.mark.slow
def test_a_vae(clips, tmp_path, capfd):
    arguments = ["--dim", "4", "--frames", "5", "--side", "32", "--steps", "4", "--batch", "1", "--gan-from", "3"]
    assert main(["train", "vae", str(clips), "--out", str(tmp_path), *arguments]) == OK
    assert "perceptual term: edge" in capfd.readouterr().out
    assert load_vae(tmp_path / "vae.safetensors").config.dim == 4


@pytest.mark.parametrize(
    "change, code, message",
    [
        (["--expert", "all"], BAD_INPUT, "high or low"),
        (["--frames", "6"], BAD_INPUT, "5 or 9"),
        (["--frames", "21"], BAD_INPUT, "has 17 frames"),
        (["--steps", "0"], BAD_INPUT, "--steps is 0"),
        (["--boundary", "2"], BAD_INPUT, "boundary is 2.0"),
    ],
)
def test_what_is_wrong_is_said(official_folder, clips, tmp_path, capfd, change, code, message):
    arguments = ["train", "expert", str(official_folder()), str(clips), "--out", str(tmp_path), "--expert", "low"]
    assert main([*arguments, *NUMBERS, *change]) == code
    assert message in capfd.readouterr().err


def test_clips_need_captions(official_folder, tmp_path, capfd):
    arguments = [
        "train",
        "expert",
        str(official_folder()),
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
        "--expert",
        "low",
    ]
    assert main(arguments) == BAD_MODEL
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"")
    assert main(arguments) == BAD_INPUT
    assert "a.png has no caption" in capfd.readouterr().err


@pytest.mark.parametrize("model", ["t2v-a14b", "i2v-a14b"])
def test_images_train_alone_and_not_among_clips(official_folder, clips, tmp_path, capfd, model):
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    picture().save(data / "picture.png")
    (data / "picture.txt").write_text("a picture")
    arguments = ["train", "expert", str(official_folder(model)), str(data), "--out", str(tmp_path), "--expert", "low"]
    assert main([*arguments, *NUMBERS]) == BAD_INPUT
    assert "picture.png is an image among clips of 5 frames" in capfd.readouterr().err
    for clip_file in data.glob("*.mp4"):
        clip_file.unlink()
    assert main([*arguments, *NUMBERS]) == OK


@pytest.mark.slow
@pytest.mark.parametrize("experts", ["safetensors", "gguf"])
def test_a_folder_with_gguf_files(official_folder, clips, tmp_path, experts):
    """Text encoder and tokenizer are read from GGUF, as the pipeline reads them; the experts may be GGUF too."""
    source, preset, folder = official_folder(), tiny_preset("t2v-a14b"), tmp_path / "model"
    write_gguf_folder(folder, source, preset)
    if experts == "safetensors":
        for file in (folder / "diffusion_models").iterdir():
            file.unlink()
        plain = write_comfyui_folder(tmp_path / "plain", source, preset)
        for file in (plain / "diffusion_models").iterdir():
            file.rename(folder / "diffusion_models" / file.name)
    assert [file.suffix for file in (folder / "text_encoders").iterdir()] == [".gguf"]
    texts = []
    for model, out in ((folder, tmp_path / "gguf"), (source, tmp_path / "official")):
        arguments = ["lora", str(model), str(clips), "--out", str(out), "--expert", "high", "--rank", "2", *NUMBERS]
        assert main(["train", *arguments]) == OK
        texts.append(torch.load(out / "cache.pt")["texts"])
    assert len(texts[0]) == len(texts[1]) == 2 + 2 * 9
    for quantized, plain in zip(*texts, strict=True):  # Q8_0
        assert quantized.shape == plain.shape and (quantized - plain).norm() < 0.05 * plain.norm()


@pytest.mark.skipif(importlib.util.find_spec("lpips") is not None, reason="lpips is installed")
def test_lpips_is_asked_for_and_not_guessed(clips, tmp_path, capfd):
    assert main(["train", "vae", str(clips), "--out", str(tmp_path / "out"), "--perceptual", "lpips"]) == BAD_INPUT
    assert "pip install lpips" in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_the_arguments_are_known_without_torch():
    code = (
        "import argparse, sys; from wan_core.commands import train; parser = argparse.ArgumentParser(); "
        "train.add_arguments(parser); print(vars(parser.parse_args(['lora', 'a', 'b', '--out', 'c', '--expert', 'low', "
        "'--rate', '0.5']))['lr'], 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == [
        "0.5",
        "False",
    ]


@pytest.mark.parametrize("name", ["bernini-r-a14b", "fun-control-a14b", "fun-inp-5b", "wan21-i2v-14b-720p"])
def test_families_that_are_not_trained_are_refused_by_name(official_folder, clips, tmp_path, capfd, name):
    expert = "high" if tiny_preset(name).two_experts else "all"
    arguments = ["train", "lora", str(official_folder(name)), str(clips), "--out", str(tmp_path), "--expert", expert]
    assert main([*arguments, *NUMBERS]) == BAD_INPUT
    assert f"training of {name}. Needed: a text-to-video or an image-to-video model" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
