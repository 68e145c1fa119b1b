"""One way from a path to a model: each header is read once, and whatever opens a model sees the same."""

import os
import shutil
import sys
from collections import Counter
from contextlib import contextmanager

import pytest

from tests.support.layouts import write_gguf_folder, write_layout
from wan_core import WanPipeline
from wan_core.checkpoints import find_model, inspect, load_dit, load_text_encoder, load_vae, open_model, open_tokenizer
from wan_core.checkpoints.formats import open_weights
from wan_core.cli import BAD_MODEL, OK, main
from wan_core.config import PRESETS
from wan_core.errors import CheckpointError
from wan_core.testing import tiny_preset

LAYOUTS = ("official", "diffusers", "comfyui", "gguf")
TENSOR_READERS = ("formats/mmap.py", "torch/serialization.py")  # these open a file for its tensors
_listening: list[Counter] = []


def _listen(event: str, arguments: tuple) -> None:
    """Counts opened files, but not for their tensors, nor for a list that lies in a GGUF header."""
    if event != "open" or not _listening or not isinstance(arguments[0], str | os.PathLike):
        return
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(TENSOR_READERS) or "array" in frame.f_code.co_name:
            return
        frame = frame.f_back
    _listening[-1][os.fspath(arguments[0])] += 1


sys.addaudithook(_listen)


@contextmanager
def opened_files():
    _listening.append(Counter())
    try:
        yield _listening[-1]
    finally:
        _listening.pop()


def write(layout, folder, source, name):
    if layout == "gguf":
        return write_gguf_folder(folder, source, tiny_preset(name))
    return write_layout(layout, folder, source, name)


def one_pass(folder) -> Counter:
    """What is opened when each part of a model is opened once."""
    parts = find_model(folder)
    with opened_files() as opened:
        for path in {parts.high, parts.low, parts.vae, parts.text_encoder} - {None}:
            open_weights(path)
    assert opened
    return opened


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["t2v-a14b", "ti2v-5b"])
def test_each_header_is_read_once(layout, name, official_folder, tmp_path):
    folder = write(layout, tmp_path / layout, official_folder(name), name)
    once = one_pass(folder)
    ways = {
        "from_pretrained": lambda: WanPipeline.from_pretrained(folder),
        "inspect": lambda: inspect(folder),
        "plan": lambda: main(["plan", str(folder)]) == OK or pytest.fail("plan"),
    }
    for way, use in ways.items():
        with opened_files() as opened:
            use()
        assert {path: opened[path] for path in once} == once, way


def test_a_parts_header_is_read_once(official_folder):
    for part in (official_folder() / "high_noise_model", official_folder() / "Wan2.1_VAE.pth"):
        with opened_files() as once:
            open_weights(part)
        with opened_files() as opened:
            inspect(part)
        assert {path: opened[path] for path in once} == once


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_parts_load_from_what_was_opened(layout, official_folder, tmp_path):
    folder = write(layout, tmp_path / layout, official_folder(), "t2v-a14b")
    files = open_model(folder)
    assert (files.preset.name, files.preset.dit, files.layout) == (
        "t2v-a14b",
        tiny_preset("t2v-a14b").dit,
        "comfyui" if layout == "gguf" else layout,
    )
    assert load_dit(files.high).config == load_dit(files.low).config == files.preset.dit
    assert load_vae(files.vae).config == files.preset.vae
    assert load_text_encoder(files.text_encoder).config == files.preset.text
    assert open_tokenizer(files.tokenizer)("a red circle")[0].shape[0] == 1
    assert files.named and (files.boundary is not None) == (layout == "diffusers")


def test_the_boundary_of_the_folder_comes_before_the_presets(official_folder, tmp_path):
    folder = write_layout("diffusers", tmp_path, official_folder(), "t2v-a14b")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("0.875", "0.5"))
    assert open_model(folder).preset.boundary == inspect(folder).boundary == 0.5
    assert open_model(official_folder()).preset.boundary == PRESETS["t2v-a14b"].boundary


def other_vae(folder, official_folder):
    (folder / "Wan2.1_VAE.pth").unlink()
    shutil.copy(official_folder("ti2v-5b") / "Wan2.2_VAE.pth", folder)


def other_expert(folder, official_folder):
    shutil.rmtree(folder / "low_noise_model")
    shutil.copytree(official_folder("i2v-a14b") / "low_noise_model", folder / "low_noise_model")


@pytest.mark.parametrize("change", [other_vae, other_expert])
def test_every_entry_point_refuses_the_same_models(change, official_folder, tmp_path, capfd):
    folder = shutil.copytree(official_folder(), tmp_path / "model")
    change(folder, official_folder)
    errors = set()
    for use in (open_model, inspect, WanPipeline.from_pretrained):
        with pytest.raises(CheckpointError) as caught:
            use(folder)
        errors.add(str(caught.value))
    for command in (["plan", str(folder)], ["inspect", str(folder)], ["generate", str(folder), "a cat"]):
        assert main(command) == BAD_MODEL
        errors.add(capfd.readouterr().err.splitlines()[-1].removeprefix("error: "))
    assert len(errors) == 1, errors
