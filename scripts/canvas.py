"""Start ComfyUI with this pack and small models under the real file names: `make canvas`.

    python -m scripts.canvas --port 8188 --folder .canvas

Every shipped workflow is there as a small copy that runs in seconds on a CPU; what the small models draw is small too.
Needs the environment of `make demo`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
SMALL = "Small copies of the templates for small models: 64×64, 17 frames, a few steps; a run takes seconds on a CPU."
# What the demo model knows, and enough steps for it. The long clip has windows of that length.
NUMBERS = {"width": 64, "height": 64, "length": 17, "steps": 8, "ref_max_size": 64}
LONG = {"length": 33, "context_length": 17, "context_overlap": 8}
PROMPT = "A red circle moves to the right"


def find_comfyui() -> Path | None:
    """ComfyUI's folder: $COMFYUI_PATH, the installation around this pack, or comfy-cli's default."""
    places = [os.environ.get("COMFYUI_PATH"), PACK.parent.parent, Path.home() / "comfy" / "ComfyUI"]
    for place in places:
        if place and (Path(place) / "main.py").is_file() and (Path(place) / "comfy").is_dir():
            return Path(place)
    return None


def python_of(comfyui: Path) -> str:
    return str(comfyui / ".venv" / "bin" / "python")


def install_requirements(comfyui: Path) -> None:
    """What ComfyUI-Manager does after it has fetched a pack; exits in one line where it cannot be done."""
    install = [python_of(comfyui), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        run = subprocess.run([*install, "-r", PACK / "requirements.txt"], capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{python_of(comfyui)}, ComfyUI's python, cannot be run: {error.strerror}.")
    if run.returncode:
        said = (run.stderr.strip() or "pip said nothing").splitlines()[-1]
        sys.exit(
            f"{PACK / 'requirements.txt'} cannot be installed into ComfyUI ({said}). Check pip and the connection."
        )


def prepare(base: Path) -> Path:
    """Folders of a ComfyUI of its own under `base`, with nothing in custom_nodes but this pack; where the pack is."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
        (base / name).mkdir(parents=True, exist_ok=True)
    pack = base / "custom_nodes" / "wan22-moe"
    if not pack.is_symlink() and not pack.exists():
        pack.symlink_to(PACK)
    return pack


def with_small_templates(pack: Path) -> None:
    """Put small copies of the workflows in the place of the pack's own; the rest of it stays linked."""
    if pack.is_symlink():
        pack.unlink()
    templates = pack / "workflows"
    templates.mkdir(parents=True, exist_ok=True)
    for name in ("__init__.py", "nodes", "wan_core", "web", "locales", "pyproject.toml", "requirements.txt"):
        if not (pack / name).is_symlink():
            (pack / name).symlink_to(PACK / name)
    for workflow in sorted((PACK / "workflows").glob("*.json")):
        small = small_workflow(json.loads(workflow.read_text("utf-8")))
        (templates / workflow.name).write_text(json.dumps(small, ensure_ascii=False), encoding="utf-8")
        picture = templates / workflow.with_suffix(".jpg").name
        if not picture.is_symlink():
            picture.symlink_to(workflow.with_suffix(".jpg"))


def small_workflow(workflow: dict) -> dict:
    """A workflow of the canvas with numbers and a prompt for the small models, and a note that says so."""
    windows = any(node["type"] == "WanContextWindowsManual" for node in workflow["nodes"])
    numbers = NUMBERS | (LONG if windows else {})
    for node in workflow["nodes"]:
        values = node.get("widgets_values_named") or {}
        for i, name in enumerate(values):
            if node["type"] == "MarkdownNote":
                values[name] = f"**{SMALL}**\n\n{values[name]}"
            elif name == "positive":
                values[name] = PROMPT
            elif name in numbers:
                values[name] = min(values[name], numbers[name])
            node["widgets_values"][i] = values[name]
    return workflow


def server_command(comfyui: Path, base: Path, port: int) -> list[str]:
    """ComfyUI on the folders of `base`; database in memory, nothing fetched."""
    options = ["--port", str(port), "--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
    if os.environ.get("COMFYUI_FRONTEND"):  # another frontend than the one that this ComfyUI pins
        options += ["--front-end-root", os.environ["COMFYUI_FRONTEND"]]
    return [python_of(comfyui), str(comfyui / "main.py"), *options, "--disable-auto-launch", "--disable-api-nodes"]


def write_models(models: Path) -> None:
    """The demo model as T2V and I2V, random weights as the other families, and a random LoRA pair."""
    from scripts.demo_model.comfyui import FILES, write_comfyui_models, write_tiny_loras
    from scripts.demo_model.text import CONFIG
    from wan_core.demo.release import TASKS, demo_model
    from wan_core.testing import write_tiny_model

    others = [name for name in FILES if name not in TASKS]
    for name in (*others, *TASKS):  # in this order, the VAE and text encoder of the demo model stay
        with tempfile.TemporaryDirectory() as folder:
            source = demo_model(name, folder) if name in TASKS else write_tiny_model(folder, name, text_dim=CONFIG.dim)
            write_comfyui_models(models, source, name)
            if name == "t2v-a14b":
                write_tiny_loras(models, source)


def write_inputs(folder: Path) -> None:
    """The picture and the clip that the shipped workflows start from; ComfyUI brings a picture of this name itself."""
    import numpy as np
    from PIL import Image, ImageDraw

    from wan_core.media.mp4 import write_mp4

    frames = []
    for left in range(120, 420, 12):
        frame = Image.new("RGB", (832, 480), (40, 60, 90))
        ImageDraw.Draw(frame).ellipse((left, 140, left + 200, 340), fill=(220, 60, 50))
        frames.append(frame)
    frames[0].save(folder / "example.png")
    write_mp4(iter([np.stack(frames)]), folder / "example.mp4", fps=16)


def main() -> None:
    parser = argparse.ArgumentParser(description="Start ComfyUI with this pack and small models.")
    parser.add_argument("--port", type=int, default=8188, help="default: %(default)s")
    folder = "models, input and output; default: %(default)s"
    parser.add_argument("--folder", type=Path, default=PACK / ".canvas", help=folder)
    options = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit(
            "No ComfyUI found. Install one: pip install comfy-cli && comfy install\n"
            "or set COMFYUI_PATH to the folder of yours; its python must be .venv/bin/python inside it."
        )
    base = options.folder.resolve()
    with_small_templates(prepare(base))
    if not (base / "models" / "loras").is_dir():
        write_models(base / "models")
    write_inputs(base / "input")
    install_requirements(comfyui)
    probe = [python_of(comfyui), "-c", "import torch; exit(not torch.cuda.is_available())"]
    gpu = subprocess.run(probe).returncode == 0
    print(
        f"Open http://127.0.0.1:{options.port} and look for Templates > wan22-moe. Ctrl+C stops it.\n{SMALL}",
        flush=True,
    )
    command = server_command(comfyui, base, options.port) + ([] if gpu else ["--cpu"])
    os.chdir(comfyui)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
