"""`make canvas`: small copies of the templates, which a new user opens and runs as they are."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from scripts.browser import find_chromium, open_canvas
from scripts.canvas import NUMBERS, PACK, SMALL, small_workflow
from wan_core.video import read_video

WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_small_copy_has_small_numbers_and_says_so(workflow):
    small, whole = small_workflow(json.loads(workflow.read_text())), json.loads(workflow.read_text())
    notes = [node["widgets_values"][0] for node in small["nodes"] if node["type"] == "MarkdownNote"]
    assert notes and all(SMALL in note for note in notes)
    seen = set()
    for node, before in zip(small["nodes"], whole["nodes"], strict=True):
        values = node.get("widgets_values_named") or {}
        assert list(values.values()) == (node.get("widgets_values") or [])
        assert node | {"widgets_values": 0, "widgets_values_named": 0} == before | {
            "widgets_values": 0,
            "widgets_values_named": 0,
        }
        for name in ("width", "height", "steps"):
            if name in values:
                assert values[name] <= NUMBERS[name]
                seen.add(name)
        assert values.get("length", 0) <= 33 and values.get("context_length", 0) <= 17
    assert seen == {"width", "height", "steps"}


@pytest.fixture
def new_user(comfyui, tmp_path):
    """`make canvas` in a folder of its own: its address, its folder and what it printed."""
    if find_chromium() is None:
        pytest.skip("no chromium")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "scripts.canvas", "--port", str(port), "--folder", str(tmp_path / "canvas")]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=PACK, stdout=log, stderr=log)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/system_stats", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                said = (tmp_path / "log").read_text()
                assert process.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.5)
        yield url, tmp_path / "canvas", tmp_path / "log"
    finally:
        process.terminate()
        process.wait(30)


def test_a_new_user_has_a_clip_without_typing_anything(new_user):
    url, folder, log = new_user
    assert SMALL in log.read_text()
    with open_canvas(url) as canvas:
        template = "/api/workflow_templates/wan22-moe/wan22_t2v_a14b.json"
        canvas.page.evaluate(
            "async path => { await app.loadGraphData(await (await fetch(path)).json()); app.queuePrompt(0) }", template
        )
        canvas.page.wait_for_function("document.querySelector('video')?.readyState >= 2", timeout=120_000)
    (clip,) = (folder / "output" / "video").glob("*.mp4")
    frames = read_video(clip)
    assert frames.shape == (17, 64, 64, 3) and frames.std() > 10


def test_without_a_connection_it_says_so_in_one_line(comfyui, tmp_path):
    """A ComfyUI whose pip cannot install, and one without its python."""
    for pip, said in (("exit 3", "cannot be installed into ComfyUI (pip said nothing)"), (None, "cannot be run")):
        fake = tmp_path / str(pip)
        (fake / "comfy").mkdir(parents=True)
        (fake / "main.py").touch()
        if pip is not None:
            (fake / ".venv" / "bin").mkdir(parents=True)
            python = fake / ".venv" / "bin" / "python"
            python.write_text(f"#!/bin/sh\n{pip}\n")
            python.chmod(0o755)
        (tmp_path / "canvas" / "models" / "loras").mkdir(parents=True, exist_ok=True)
        run = subprocess.run(
            [sys.executable, "-m", "scripts.canvas", "--folder", str(tmp_path / "canvas")],
            cwd=PACK,
            capture_output=True,
            text=True,
            env={"COMFYUI_PATH": str(fake), "PATH": "/usr/bin:/bin"},
        )
        assert run.returncode == 1 and run.stderr.count("\n") == 1 and said in run.stderr, run.stderr
