"""One opening, one verdict: what loading refuses, `inspect` and `plan` refuse with the same words and exit code 3."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import wan_core
from tests.support.layouts import huggingface_text_encoder, write_comfyui_folder, write_gguf
from tests.support.sparse import write_sparse
from wan_core import WanPipeline
from wan_core.checkpoints import inspect, load_dit, load_text_encoder, load_vae, open_model
from wan_core.checkpoints.expected import EXPECTED
from wan_core.cli import BAD_MODEL, OK, main
from wan_core.config import PRESETS, TextConfig
from wan_core.cpu import make_dit, make_vae
from wan_core.errors import CheckpointError
from wan_core.testing import tiny_preset
from wan_core.text import UMT5

LOAD = {"diffusion_models": load_dit, "vae": load_vae, "text_encoders": load_text_encoder}
PLACES = {"dit": "diffusion_models", "vae": "vae", "text_encoder": "text_encoders"}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def single_files(official_folder, tmp_path_factory):
    """A ComfyUI folder of a single text-to-video model with a text encoder of three blocks."""
    preset = tiny_preset("wan21-t2v-14b")
    folder = write_comfyui_folder(tmp_path_factory.mktemp("model"), official_folder("wan21-t2v-14b"), preset)
    (file,) = (folder / "text_encoders").iterdir()
    encoder = huggingface_text_encoder(replace(preset.text, layers=3)).state_dict()
    encoder = {name: t.contiguous() for name, t in encoder.items() if name != "encoder.embed_tokens.weight"}
    save_file(encoder | {"spiece_model": load_file(file)["spiece_model"]}, file)
    return folder


def note(state: State, layer="blocks.0.ffn.0", **words) -> State:
    return state | {f"{layer}.comfy_quant": torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)}


def without(state: State, *words: str) -> State:
    return {name: t for name, t in state.items() if not any(word in name for word in words)}


def nvfp4(state: State) -> State:
    """As ComfyUI stores it: two numbers a byte, a factor for 16 of them, and one for all."""
    rows, columns = state["blocks.0.ffn.0.weight"].shape
    state = note(state, format="nvfp4") | {"blocks.0.ffn.0.weight": torch.zeros(rows, columns // 2, dtype=torch.uint8)}
    scales = torch.zeros(rows, columns // 16).to(torch.float8_e4m3fn)
    return state | {"blocks.0.ffn.0.weight_scale": scales, "blocks.0.ffn.0.weight_scale_2": torch.ones(())}


def mxfp8(state: State) -> State:
    weight = state["blocks.0.ffn.0.weight"]
    scales = torch.zeros(weight.shape[0], weight.shape[1] // 32, dtype=torch.uint8)
    state = note(state, format="mxfp8") | {"blocks.0.ffn.0.weight_scale": scales}
    return state | {"blocks.0.ffn.0.weight": weight.to(torch.float8_e4m3fn)}


def int8(state: State, **words) -> State:
    state = note(state, format="int8_tensorwise", **words)
    state["blocks.0.ffn.0.weight_scale"] = torch.ones(())
    return state | {"blocks.0.ffn.0.weight": state["blocks.0.ffn.0.weight"].to(torch.int8)}


@dataclass(frozen=True)
class Refused:
    """A file that does not load: how it is made from one that does, and what is said of it."""

    change: Callable[[State], State]
    said: str
    what: str = "dit"


REFUSED = {
    "S2V": Refused(lambda s: s | {"casual_audio_encoder.encoder.final_linear.weight": torch.ones(1)}, "is S2V-14B"),
    "Animate": Refused(lambda s: s | {"face_adapter.fuser_blocks.0.k_norm.weight": torch.ones(1)}, "is Animate-14B"),
    "a family that nobody knows": Refused(
        lambda s: s | {"blocks.0.new.weight": torch.ones(1)},
        r"1 tensors this model does not know \(blocks.0.new.weight\).*Load Diffusion Model",
    ),
    "plain T5": Refused(
        lambda s: without(s, "block.1.layer.0.SelfAttention.relative", "block.2.layer.0.SelfAttention.relative"),
        "is a T5 encoder with one position table, not umT5.*umt5_xxl_fp16",
        "text_encoder",
    ),
    "mxfp8": Refused(mxfp8, "stores blocks.0.ffn.0 as mxfp8.*Load this file in ComfyUI"),
    "nvfp4": Refused(nvfp4, "stores blocks.0.ffn.0 as nvfp4.*Load this file in ComfyUI"),
    "rotated int8": Refused(
        lambda s: int8(s, convrot=True), "int8_tensorwise with a rotation.*Load this file in ComfyUI"
    ),
    "rotated int8, said elsewhere": Refused(lambda s: int8(s, params={"convrot": True}), "with a rotation"),
    "a scale of another size": Refused(
        lambda s: s | {"blocks.0.ffn.0.scale_weight": torch.ones(7)}, "7 scales for blocks.0.ffn.0.weight"
    ),
    "whole numbers": Refused(
        lambda s: s | {"time_embedding.0.weight": s["time_embedding.0.weight"].int()},
        "stores time_embedding.0.weight as int32 without a scale",
    ),
    "a tensor less": Refused(lambda s: without(s, "blocks.1.norm3.bias"), "lacks 1 of .*blocks.1.norm3.bias"),
    "a block less in the middle": Refused(
        lambda s: {name.replace("blocks.1.", "blocks.5."): t for name, t in s.items()}, "lacks .*blocks.1."
    ),
    "another shape": Refused(lambda s: s | {"head.head.bias": torch.ones(3)}, r"head.head.bias is \(3,\) instead of"),
    "a VAE with a tensor less": Refused(lambda s: without(s, "encoder.middle.0.residual.2.bias"), "lacks 1 of", "vae"),
    "umT5 with a tensor less": Refused(
        lambda s: without(s, "block.1.layer.0.SelfAttention.relative"), "lacks 1 of", "text_encoder"
    ),
}


@pytest.fixture
def refused(single_files, tmp_path):
    """Name of a row → a model folder with such a file, and the file."""

    def write(name: str) -> tuple[Path, Path]:
        folder = shutil.copytree(single_files, tmp_path / "model")
        (file,) = (folder / PLACES[REFUSED[name].what]).iterdir()
        state = REFUSED[name].change(load_file(file))
        save_file({key: t.contiguous() for key, t in state.items()}, file)
        return folder, file

    return write


def error_of(use, path) -> str:
    with pytest.raises(CheckpointError) as caught:
        use(path)
    return str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_every_door_refuses_it_with_the_same_words(name, refused, capfd):
    folder, file = refused(name)
    doors = [(use, folder) for use in (inspect, open_model, WanPipeline.from_pretrained)]
    doors += [(use, file) for use in (inspect, LOAD[file.parent.name])]
    errors = {error_of(*door) for door in doors}
    for command in (["inspect", file], ["inspect", folder], ["plan", folder], ["generate", folder, "a cat"]):
        assert main([str(word) for word in command]) == BAD_MODEL
        errors.add(capfd.readouterr().err.splitlines()[-1].removeprefix("error: "))
    assert len(errors) == 1, errors
    assert re.search(f"^{re.escape(str(file))} .*{REFUSED[name].said}", errors.pop())


def test_the_same_folder_is_approved_before_it_is_changed(single_files):
    assert main(["inspect", str(single_files)]) == main(["plan", str(single_files)]) == OK
    WanPipeline.from_pretrained(single_files)


@pytest.mark.parametrize("layout", ["ComfyUI", "GGUF", "official"])
def test_a_model_without_its_tokenizer(single_files, official_folder, tmp_path, layout, capfd):
    """Nothing is encoded for training before it is missed."""
    folder = shutil.copytree(official_folder() if layout == "official" else single_files, tmp_path / "model")
    if layout == "official":
        (folder / "google" / "umt5-xxl" / "spiece.model").unlink()
    else:
        (file,) = (folder / "text_encoders").iterdir()
        state = without(load_file(file), "spiece_model")
        file.unlink()
        if layout == "ComfyUI":
            save_file(state, file)
        else:
            write_gguf(file.with_suffix(".gguf"), state, lambda name, tensor: "F32", "t5encoder")
    errors = {error_of(use, folder) for use in (inspect, open_model, WanPipeline.from_pretrained)}
    arguments = ["lora", str(folder), str(tmp_path), "--out", str(tmp_path / "out"), "--expert", "high"]
    assert main(["train", *arguments]) == BAD_MODEL
    errors.add(capfd.readouterr().err.removeprefix("error: ").strip())
    assert len(errors) == 1 and "no tokenizer" in errors.pop()


def test_every_tokenizer_comes_through_one_door():
    """A folder, a file of ComfyUI's and GGUF are told apart in one place; who opens one himself forgets one of them."""
    package = Path(wan_core.__file__).parent
    doors = [path for path in package.rglob("*.py") if "Tokenizer.from_" in path.read_text("utf-8")]
    assert [path.relative_to(package).as_posix() for path in doors if path.parent.name != "text"] == [
        "checkpoints/tokenizer.py"
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_expected_is_what_the_module_has(name):
    """The names that files are compared with come from a model of two blocks and from a table."""
    preset = replace(PRESETS[name], text=TextConfig(dim=8, dim_attn=16, ffn_dim=24, heads=4, layers=3, vocab=40))
    modules = {"dit": make_dit, "vae": make_vae, "text_encoder": UMT5}
    configs = {"dit": preset.dit, "vae": preset.vae, "text_encoder": preset.text}
    for kind, construct in modules.items():
        with torch.device("meta"):
            state = construct(configs[kind]).state_dict()
        assert EXPECTED[kind](configs[kind]) == {name: tuple(t.shape) for name, t in state.items()}, kind


def test_a_whole_model_of_real_size_is_judged_without_constructing_it(tmp_path):
    """14 billion parameters, in a file of holes; one tensor is missing."""
    shapes = {
        name: torch.empty(shape, device="meta") for name, shape in EXPECTED["dit"](PRESETS["t2v-a14b"].dit).items()
    }
    del shapes["blocks.39.ffn.2.bias"]
    path = write_sparse(tmp_path / "model.safetensors", shapes)
    assert "lacks 1 of 1095 tensors (blocks.39.ffn.2.bias)" in error_of(inspect, path)


NO_TOKENIZERS = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:e39\n",
    "a web page": b"\n<!DOCTYPE html><html>",
    "nothing": b"",
}


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
@pytest.mark.parametrize("content", NO_TOKENIZERS.values(), ids=NO_TOKENIZERS)
def test_a_tokenizer_that_was_not_downloaded(official_folder, tmp_path, capfd, name, content):
    folder = shutil.copytree(official_folder(), tmp_path / "model")
    file = folder / "google" / "umt5-xxl" / name
    file.write_bytes(content)
    for command in ("inspect", "plan"):
        assert main([command, str(folder)]) == BAD_MODEL
        assert f"{file} is no tokenizer: it begins with" in capfd.readouterr().err


def test_plan_of_a_file_says_that_it_is_one(single_files, capfd):
    file = next(single_files.rglob("*.safetensors"))
    assert main(["plan", str(file)]) == BAD_MODEL
    assert f"{file} is a file. Needed: the folder" in capfd.readouterr().err


def test_sizes_that_no_model_has_are_said_with_their_file(official_folder, tmp_path, capfd):
    folder = shutil.copytree(official_folder("t2v-a14b"), tmp_path / "model")
    config = folder / "low_noise_model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 10**9}))
    assert main(["inspect", str(folder)]) == BAD_MODEL
    assert f"{config.parent}: a model config with layers = 1000000000" in capfd.readouterr().err
