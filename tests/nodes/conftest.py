import warnings

import comfyui as comfy
import pytest
from browser import find_chromium, open_canvas
from canvas import find_comfyui, install_requirements, write_models, write_picture
from layouts import write_comfyui_folder

from wan_core.demo.tiny import tiny_preset


@pytest.fixture(scope="session")
def comfyui():
    found = find_comfyui()
    if found is None:
        message = "NO COMFYUI FOUND: the nodes are not tested. Set COMFYUI_PATH to a ComfyUI folder with its .venv."
        warnings.warn(message)
        pytest.skip(message)
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
    write_picture(base / "input" / "example.png")
    return base


@pytest.fixture(scope="module")
def canvas(server):
    """A browser on the server."""
    if find_chromium() is None:
        message = "NO CHROMIUM FOUND: nothing is opened on a canvas. Install the package chromium."
        warnings.warn(message)
        pytest.skip(message)
    with open_canvas(server.url) as canvas:
        yield canvas


@pytest.fixture(scope="session")
def server(comfyui, base):
    with comfy.serve(comfyui, base) as server:
        yield server
