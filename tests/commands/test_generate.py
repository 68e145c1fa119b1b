import re
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from wan_core.cli import BAD_INPUT, BAD_MODEL, FAILED, INTERRUPTED, OK, main
from wan_core.commands.generate import file_and_strength
from wan_core.media.read import read_metadata, read_video
from wan_core.video import export_to_video

NUMBERS = ["--width", "48", "--height", "32", "--frames", "5", "--steps", "4", "--seed", "3"]


@pytest.mark.parametrize("prompt", ["A red circle moves", "一只猫在雪地里行走"])
def test_generate_writes_a_clip_and_says_where(official_folder, tmp_path, capfd, prompt):
    out = tmp_path / "clip.mp4"
    assert main(["generate", str(official_folder()), prompt, "--out", str(out), *NUMBERS]) == OK
    printed = capfd.readouterr()
    assert str(out) in printed.out and "seed 3" in printed.out
    assert read_video(out).shape == (5, 32, 48, 3)
    assert read_metadata(out)["prompt"] == prompt


def test_the_progress_bar_names_the_expert_at_work(official_folder, tmp_path, capfd):
    main(["generate", str(official_folder()), "a cat", "--out", str(tmp_path / "clip.mp4"), *NUMBERS])
    shown = capfd.readouterr().err
    assert shown.index("high-noise expert: layout and motion") < shown.index("low-noise expert: texture and detail")
    assert "4/4" in shown


def test_generate_with_loras(official_folder, tmp_path, capfd):
    path = tmp_path / "style_low_noise.pt"
    name = "diffusion_model.blocks.0.self_attn.q"
    torch.save({f"{name}.lora_down.weight": torch.ones(2, 128), f"{name}.lora_up.weight": torch.ones(128, 2)}, path)
    arguments = ["generate", str(official_folder()), "a cat", "--out", str(tmp_path / "clip.mp4"), *NUMBERS]
    assert main([*arguments, "--lora", f"{path}:0.7", "--lora", str(path)]) == OK
    assert capfd.readouterr().err.count("2 of 2 tensors applied to the low-noise expert") == 2
    assert main([*arguments, "--lora", "nothing.safetensors"]) == BAD_MODEL
    assert "nothing.safetensors" in capfd.readouterr().err


def test_a_single_model_is_not_called_an_expert(official_folder, tmp_path, capfd):
    arguments = ["--width", "64", "--height", "64", "--frames", "5", "--steps", "2"]
    assert (
        main(["generate", str(official_folder("ti2v-5b")), "a cat", "--out", str(tmp_path / "c.mp4"), *arguments]) == OK
    )
    shown = capfd.readouterr().err
    assert "the model" in shown and "expert" not in shown


def test_generate_from_an_image_with_offload(official_folder, tmp_path):
    Image.new("RGB", (60, 40), "navy").save(tmp_path / "first.png")
    arguments = ["--image", str(tmp_path / "first.png"), "--offload", "--out", str(tmp_path / "clip.mp4"), *NUMBERS]
    assert main(["generate", str(official_folder("i2v-a14b")), "waves", *arguments]) == OK


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--width", "50"], BAD_INPUT, "50×32.*width is 48 or 64, height 32"),
        (["--frames", "6"], BAD_INPUT, "nearest count is 5 or 9"),
        (["--guidance", "nan"], BAD_INPUT, "guidance_scale"),
        (["--attention", "ring"], BAD_INPUT, "attention is 'ring'.*sdpa, flash, sage, auto"),
        (["--step-cache", "2"], BAD_INPUT, "step_cache is 2.0"),
        (["--steps", "-1"], BAD_INPUT, "steps"),
        (["--solver", "none"], BAD_INPUT, "unipc"),
        (["--image", "x.png"], BAD_INPUT, "image was given"),
        (["--out", "missing/clip.mp4"], BAD_INPUT, "not a folder"),
        (["--out", "clip.avi"], BAD_INPUT, "ends in .mp4"),
        (["--video", "missing.mp4"], BAD_INPUT, "video was given"),
        (["--device", "quantum"], BAD_INPUT, "the device quantum cannot be used here"),
        (["--seed", "99999999999999999999"], BAD_INPUT, "seed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(official_folder, tmp_path, capfd, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(official_folder()), "a cat", *NUMBERS, *arguments]) == code
    shown = capfd.readouterr().err.splitlines()[-1]
    assert shown.startswith("error: ") and re.search(message, shown)
    assert not list(tmp_path.iterdir())


def test_generate_from_a_video_and_references(official_folder, tmp_path, capfd):
    """The inputs of Bernini-R and Fun-Control; a plan counts what they add."""
    source, still = tmp_path / "source.mp4", tmp_path / "still.png"
    export_to_video(torch.rand(9, 64, 96, 3).numpy(), source)
    Image.new("RGB", (60, 40), "navy").save(still)
    given = ["--video", str(source), "--reference", str(still)]
    for name in ("bernini-r-a14b", "fun-control-a14b"):
        folder, out = str(official_folder(name)), tmp_path / f"{name}.mp4"
        assert main(["generate", folder, "a cat", *given, "--out", str(out), *NUMBERS]) == OK
        assert read_video(out).shape == (5, 32, 48, 3)
    bernini = ["plan", str(official_folder("bernini-r-a14b")), *NUMBERS[:-2]]
    assert main([*bernini, *given, "--reference", str(still)]) == OK
    # 2 latent frames of 2×3 tokens; as much of the source; two references of 32×64 pixels
    assert "12 tokens and 28 of what it is made from" in capfd.readouterr().out
    assert main(bernini) == OK and " 12 tokens\n" in capfd.readouterr().out
    assert main(["plan", str(official_folder()), *given]) == BAD_INPUT
    assert "put the word 'bernini' into the name" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["--device", "quantum"], ["--attention", "ring"]])
def test_wrong_arguments_are_said_before_a_missing_model(tmp_path, capfd, arguments):
    assert main(["generate", str(tmp_path / "missing"), "a cat", *arguments]) == BAD_INPUT
    assert re.search("the device quantum|attention is 'ring'", capfd.readouterr().err)


def test_a_missing_ffmpeg_is_a_failure_of_the_machine(official_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    assert main(["generate", str(official_folder()), "a cat", "--out", str(tmp_path / "clip.mp4"), *NUMBERS]) == FAILED
    assert "no ffmpeg can be run" in capfd.readouterr().err


def heed_interrupts():
    """A job that a shell has put into the background ignores them, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_interrupt_ends_quietly(official_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "wan_core",
        "generate",
        str(official_folder()),
        "a cat",
        "--steps",
        "1000",
        "--width",
        "160",
        "--height",
        "160",
        "--out",
        str(tmp_path / "clip.mp4"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)
    shown = b""
    while b" 1/1000" not in shown and process.poll() is None:
        shown += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == INTERRUPTED and b"Interrupted." in rest and b"Traceback" not in rest
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, parts",
    [
        ("style.pt:0.7", ("style.pt", 0.7)),
        ("style.pt:-1", ("style.pt", -1.0)),
        ("style.pt", ("style.pt", 1.0)),
        ("C:/style.pt", ("C:/style.pt", 1.0)),
        ("C:/style.pt:2", ("C:/style.pt", 2.0)),
    ],
)
def test_a_colon_may_belong_to_the_path_of_a_lora(text, parts):
    assert file_and_strength(text) == parts
