import json
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

from scripts.browser import find_chromium, open_canvas
from scripts.canvas import PACK, find_comfyui, install_requirements, python_of, write_inputs, write_models
from tests.support import comfyui as comfy
from tests.support.branches import tiny_dit
from tests.support.goldens import FOLDER
from tests.support.layouts import add_tokenizer, llama_cpp_name, state_of, write_comfyui_folder, write_gguf
from wan_core.testing import tiny_preset


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory):
    found = find_comfyui()
    if found is None:
        message = "NO COMFYUI FOUND: the nodes are not tested. Set COMFYUI_PATH to a ComfyUI folder with its .venv."
        warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    with FileLock(tmp_path_factory.getbasetemp().parent / "requirements.lock"):  # another process may be at it
        install_requirements(found)
    return found


@pytest.fixture(scope="session")
def base(tmp_path_factory, official_folder):
    """Folders of a ComfyUI with tiny models: one subfolder per family, and the names of the shipped workflows."""
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("t2v-a14b", "i2v-a14b", "ti2v-5b", "vace-a14b"):
        single = write_comfyui_folder(tmp_path_factory.mktemp(name), official_folder(name), tiny_preset(name))
        for kind in ("diffusion_models", "vae", "text_encoders"):
            (base / "models" / kind).mkdir(parents=True, exist_ok=True)
            (base / "models" / kind / name).symlink_to(single / kind)
    write_models(base / "models")
    (base / "input").mkdir()
    write_inputs(base / "input")
    return base


@pytest.fixture(scope="module")
def canvas(server):
    """A browser on the server."""
    if find_chromium() is None:
        message = "NO CHROMIUM FOUND: nothing is opened on a canvas. Install the package chromium."
        warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    with open_canvas(server.url) as canvas:
        yield canvas


@pytest.fixture(scope="session")
def server(comfyui, base):
    with comfy.serve(comfyui, base) as server:
        yield server


@pytest.fixture(scope="session")
def stored(tmp_path_factory, official_folder):
    """An expert and a text encoder in GGUF, and the same weights dequantized, as ComfyUI has no gguf package."""
    return write_stored(tmp_path_factory.mktemp("stored"), official_folder("t2v-a14b"))


@pytest.fixture(scope="session")
def measured(comfyui, base, stored):
    """What the checks in `inside` find: name → result. All run in one process of ComfyUI's python."""
    return measure("numbers", comfyui, base, stored)


@pytest.fixture(scope="session")
def measured_families(comfyui, base):
    """The same of the checks on other models than ours, in a process of their own."""
    return measure("families", comfyui, base, base)


def measure(group: str, comfyui: Path, base: Path, stored: Path) -> "Measured":
    places = (comfyui, PACK, base / "models", FOLDER, stored)
    command = [python_of(comfyui), Path(__file__).parent / "inside", group, *places]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, run.stdout[-2000:] + run.stderr[-6000:]
    return Measured(json.loads(lines[-1].removeprefix("RESULT ")))


class Measured(dict):
    """Name of a check → what it found; asking for one that failed fails the test with its traceback."""

    def __getitem__(self, name: str):
        outcome, found = super().__getitem__(name)
        if outcome == "failed":
            pytest.fail(f"{name}, inside ComfyUI:\n{found}", pytrace=False)
        return found


def write_stored(folder: Path, official: Path) -> Path:
    def kind_of(name, tensor):
        if tensor.ndim == 2 and "blocks." in name:
            return "Q4_0"
        return "Q8_0" if tensor.ndim == 2 and "blk." in name and "rel_b" not in name else "F32"

    dequantized = write_gguf(folder / "high.gguf", state_of(official / "high_noise_model", "dit"), kind_of)
    save_file(dequantized, folder / "high.safetensors")
    branches = tiny_dit("wan21-flf2v", dim=128, heads=1, image_dim=1280).state_dict()
    save_file(write_gguf(folder / "flf2v.gguf", branches, kind_of), folder / "flf2v.safetensors")
    state = state_of(official / "models_t5_umt5-xxl-enc-bf16.pth", "text_encoder")
    proto = (official / "google" / "umt5-xxl" / "spiece.model").read_bytes()
    theirs = {llama_cpp_name(name): t for name, t in state.items()}
    dequantized = write_gguf(
        folder / "umt5.gguf", theirs, kind_of, "t5encoder", lambda writer: add_tokenizer(writer, proto)
    )
    plain = {name: dequantized[llama_cpp_name(name)].to(torch.bfloat16) for name in state}
    save_file(
        plain | {"spiece_model": torch.frombuffer(bytearray(proto), dtype=torch.uint8)}, folder / "umt5.safetensors"
    )
    return folder
