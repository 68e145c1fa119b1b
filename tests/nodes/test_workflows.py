"""The shipped workflows: they run, at a small size and with few steps, and canvas and API files are the same graphs."""

import json
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts.canvas import PACK
from wan_core.video import read_metadata, read_video

WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))
SMALL = {"width": 96, "height": 64, "length": 9, "context_length": 17, "context_overlap": 8, "ref_max_size": 96}


def api_of(workflow: Path) -> dict:
    return json.loads((workflow.parent / "api" / workflow.name).read_text(encoding="utf-8"))


def by_stem(path: Path) -> str:
    return path.stem


def test_every_workflow_has_its_picture_and_its_api_file():
    stems = [path.stem for path in WORKFLOWS]
    assert len(stems) == 10
    assert [path.stem for path in sorted((PACK / "workflows").glob("*.jpg"))] == stems
    assert [path.stem for path in sorted((PACK / "workflows" / "api").glob("*.json"))] == stems


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=by_stem)
def test_the_note_says_where_every_file_goes(workflow):
    notes = "".join(
        node["widgets_values"][0]
        for node in json.loads(workflow.read_text())["nodes"]
        if node["type"] == "MarkdownNote"
    )
    files = {
        value
        for node in api_of(workflow).values()
        for value in node["inputs"].values()
        if isinstance(value, str) and value.endswith(".safetensors")
    }
    assert files and not [file for file in files if f"`{file.removesuffix('.safetensors')}`" not in notes]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=by_stem)
def test_the_template_browser_is_served(server, workflow):
    """ComfyUI serves one template folder of a pack, so there must be no second one, such as `examples`."""
    assert server.get("/api/workflow_templates")["wan22-moe"].count(workflow.stem) == 1
    for name in (workflow.name, workflow.with_suffix(".jpg").name):
        with urllib.request.urlopen(f"{server.url}/api/workflow_templates/wan22-moe/{name}") as answer:
            assert answer.read() == (PACK / "workflows" / name).read_bytes()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=by_stem)
def test_it_runs(server, workflow):
    graph = api_of(workflow)
    long = "long" in workflow.stem
    for node in graph.values():
        node["inputs"] |= {key: value for key, value in SMALL.items() if key in node["inputs"]}
        if long and "length" in node["inputs"]:
            node["inputs"]["length"] = 33
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = min(node["inputs"]["steps"], 6)
    entry = server.run(graph)
    (shown,) = (
        file
        for output in entry["outputs"].values()
        for file in output.get("images", [])
        if file["filename"].endswith(".mp4")
    )
    clip = server.base / "output" / shown["subfolder"] / shown["filename"]
    assert read_video(clip).shape == (33 if long else 9, 64, 96, 3)
    assert set(json.loads(read_metadata(clip)["prompt"])) == set(graph)


def test_two_queues_of_the_long_clip_are_bit_equal(server):
    """Its windows go by the step, in an object that ComfyUI keeps from queue to queue."""
    graph = api_of(PACK / "workflows" / "wan22_long_clip.json")
    for node in graph.values():
        node["inputs"] |= {key: value for key, value in (SMALL | {"length": 33}).items() if key in node["inputs"]}
    (sampler,) = (key for key, node in graph.items() if node["class_type"] == "Wan22MoEKSampler")
    graph = {key: node for key, node in graph.items() if "Decode" not in node["class_type"]}
    graph["save"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "long"}}
    latents = []
    for seed in (1, 2, 1):
        graph[sampler]["inputs"]["seed"] = seed
        entry = server.run(graph)
        assert sampler in server.executed(entry)
        (saved,) = entry["outputs"]["save"]["latents"]
        file = server.base / "output" / saved["subfolder"] / saved["filename"]
        latents.append(load_file(file)["latent_tensor"])
    assert torch.equal(latents[0], latents[2]) and not torch.equal(latents[0], latents[1])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=by_stem)
def test_the_canvas_makes_the_api_file(canvas, workflow):
    canvas.open(workflow)
    assert canvas.prompt() == api_of(workflow)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=by_stem)
def test_no_two_nodes_overlap(workflow):
    title = 30
    boxes = [(n["pos"][0], n["pos"][1] - title, *n["size"]) for n in json.loads(workflow.read_text())["nodes"]]
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[i + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h + title <= y2 or y2 + h2 + title <= y


OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll('[data-node-id]')].map(node => node.getBoundingClientRect());
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return [boxes.length, boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => meet(a, b))).length];
}"""


def test_no_two_nodes_overlap_in_nodes_2_either(canvas):
    """There nodes are taller than the file says."""
    canvas.load(Comfy__VueNodes__Enabled=True)
    for workflow in WORKFLOWS:
        canvas.open(workflow)
        canvas.fit()
        canvas.page.wait_for_timeout(500)
        assert canvas.page.evaluate(OVERLAPS) == [len(json.loads(workflow.read_text())["nodes"]), 0], workflow.stem
