"""Every option of every command with values that nobody means: one line that names an error, and its exit code."""

import os

import pytest
from PIL import Image

from tests.support.small_clips import picture
from wan_core import WanPipeline
from wan_core.cli import BAD_INPUT, BAD_MODEL, FAILED, _parser, main
from wan_core.errors import CheckpointError, InputError
from wan_core.training.data import captions_of, list_clips
from wan_core.training.run import TrainingRun, read_state

SMALL = ["--width", "48", "--height", "32", "--frames", "5", "--steps", "4"]
VAE = ["--out", "trained", "--dim", "8", "--frames", "5", "--side", "16", "--steps", "2", "--batch", "1"]
COMMANDS = {
    "generate": ["generate", "{t2v-a14b}", "a cat", *SMALL],
    "generate from an image": ["generate", "{i2v-a14b}", "waves", "--image", "first.png", *SMALL],
    "inspect": ["inspect", "{t2v-a14b}"],
    "plan": ["plan", "{t2v-a14b}", *SMALL],
    "demo": ["demo"],
    "train vae": ["train", "vae", "clips", *VAE],
    "train lora": ["train", "lora", "{t2v-a14b}", "clips", "--out", "trained", "--expert", "high", *SMALL],
}
BAD = ["", "\0", "nan", "-inf", "-1", "0", "9" * 400, "9" * 5000, "x", "a\nb", "\udcff", "y" * 5000, "cuda:99", "."]
FILES = ["missing.png", "text.txt", "empty.bin", "pipe", "/dev/null", "/dev/full", "/dev/null/x.mp4"]


class Accepted(BaseException):
    """Raised in place of the work, where every argument has been accepted."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command runs; what takes time is left out."""

    def stop(*args, **kwargs):
        raise Accepted

    monkeypatch.setattr(WanPipeline, "generate", stop)
    monkeypatch.setattr(WanPipeline, "from_files", stop)
    monkeypatch.setattr(TrainingRun, "__init__", stop)
    monkeypatch.setattr("wan_core.training.data.encode_folder", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    picture(64, 64).save(tmp_path / "clips" / "a.png")
    (tmp_path / "clips" / "a.txt").write_text("a cat")
    Image.new("RGB", (48, 32)).save(tmp_path / "first.png")
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty.bin").touch()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def options_of(words):
    """(flag, or None for a position) of every option of a command that takes a value."""
    parser = _parser()
    for word in words:
        (choices,) = parser._subparsers._group_actions
        parser = choices.choices[word]
    return [next(iter(action.option_strings), None) for action in parser._actions if action.nargs != 0]


def calls(command):
    """Every call of a command with one bad value."""
    names = command[:2] if command[0] == "train" else command[:1]
    positions = len(names)
    for flag in options_of(names):
        for bad in BAD + FILES:
            if flag is not None:
                yield [*command, f"{flag}={bad}"]
            elif not bad.startswith("-") and positions < len(command):
                yield [*command[:positions], bad, *command[positions + 1 :]]
        positions += flag is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_value_ends_in_one_line(official_folder, folder, capfd, name):
    models = {f"{{{model}}}": str(official_folder(model)) for model in ("t2v-a14b", "i2v-a14b")}
    refused = 0
    for call in calls([models.get(word, word) for word in COMMANDS[name]]):
        try:
            code = main(call)
        except Accepted:
            continue
        except SystemExit as stop:  # argparse, after its usage
            code = stop.code
        lines = capfd.readouterr().err.split("\n")
        if code:
            refused += 1
            assert code in (FAILED, BAD_INPUT, BAD_MODEL), call
            assert "error: " in lines[-2] and lines[-1] == "", (call, lines)
            assert len(lines) == 2 or lines[0].startswith("usage: "), (call, lines)
    assert refused >= 4


def test_the_demo_is_refused_before_anything_is_copied(folder, capfd, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda: pytest.fail("something was copied"))
    for arguments in (["--image", "text.txt"], ["--image", ""], ["--out", "clip.avi"], ["--seed", "9" * 40]):
        assert main(["demo", *arguments]) == BAD_INPUT
        assert capfd.readouterr().err.startswith("error: ")


def test_an_empty_image_is_no_text_to_video(folder, capfd):
    assert main(["demo", "--image", ""]) == BAD_INPUT
    assert "does not exist" in capfd.readouterr().err


@pytest.mark.parametrize("flag", ["--frames", "--width", "--height"])
def test_zero_is_not_the_models_own_number(official_folder, folder, capfd, flag):
    command = ["train", "lora", str(official_folder()), "clips", "--out", "trained", "--expert", "high", flag, "0"]
    assert main(command) == BAD_INPUT
    assert "is 0" in capfd.readouterr().err and not (folder / "trained").exists()


def test_what_lies_in_a_folder_for_training(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(InputError, match="UTF-8"):
        captions_of(tmp_path / "a.png")
    for path in ("y" * 5000, "\0"):
        with pytest.raises(CheckpointError):
            list_clips(path)
    for content in (b"", b"PK\3\4", b"hello"):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_state(tmp_path / "state.pt")
