"""The command-line client of a server: queue, follow, change, cancel, save."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from scripts.canvas import PACK
from tests.support.graphs import node, t2v
from wan_core.video import read_metadata, read_video


@pytest.fixture
def client(server, tmp_path):
    """Starts the client on a workflow of the tiny model; a Popen."""

    def start(*options, workflow=None, address=None):
        if workflow is not None:
            (tmp_path / "workflow.json").write_text(json.dumps(workflow))
        command = [sys.executable, PACK / "scripts" / "queue_workflow.py", tmp_path / "workflow.json"]
        command += ["--out", tmp_path / "clip.mp4", *options, "--server", address or server.url.removeprefix("http://")]
        return subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def refused(process) -> str:
    """What a client says that exits with 1: one line."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and not out, out + err
    assert err.count("\n") == 1 and len(err) < 1000 and "Traceback" not in err
    return err


def slow(prefix, seed) -> dict:
    """A job that takes long enough to be cancelled."""
    latent = node("Wan22EmptyLatent", width=160, height=160, length=33, batch_size=1, family="A14B")
    return t2v(prefix, steps=200, seed=seed) | {"latent": latent}


def test_it_changes_inputs_follows_both_experts_and_saves_the_clip(client, tmp_path):
    workflow = t2v("client")
    workflow["latent"]["_meta"] = {"title": "Size, in v1.0"}
    process = client(
        *("--prompt", "一只猫", "--seed", "77", "--set", "sample.steps=6", "--set", "Wan22TextEncode.negative=a = b"),
        *("--set", "Size, in v1.0.length=13", "--set", "text.official_negative=False"),
        workflow=workflow,
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "Wan22MoEKSampler 1/6 (high-noise expert" in out
    assert re.search(r"Wan22MoEKSampler 6/6 \(low-noise expert.*, \d+\.\d s a step, 0:00 left\)", out), out
    graph = json.loads(read_metadata(tmp_path / "clip.mp4")["prompt"])
    inputs = {name: graph[name]["inputs"] for name in graph}
    assert (inputs["text"]["positive"], inputs["text"]["negative"]) == ("一只猫", "a = b")
    assert (inputs["sample"]["seed"], inputs["sample"]["steps"]) == (77, 6)
    assert inputs["text"]["official_negative"] is False
    assert len(read_video(tmp_path / "clip.mp4")) == 13


CHANGES = {
    "latent.length": "NODE.INPUT=VALUE",
    "nobody.length=5": "fits no node of experts",
    "latent.heigth=5": "fits no node of experts",
    "sample.positive=x": "is linked to another node",
    "sample.steps=many": "'many' where a number belongs",
    "sample.steps=true": "'true' where a number belongs",
    "text.official_negative=3": "'3' where true or false belongs",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_fits_nothing_is_refused(client, change):
    assert CHANGES[change] in refused(client("--set", change, workflow=t2v("client")))


def test_two_nodes_of_a_class_are_told_apart_by_their_ids(client):
    workflow = t2v("client")
    workflow["other"] = workflow["latent"]
    said = refused(client("--set", "Wan22EmptyLatent.length=9", workflow=workflow))
    assert "fits nodes latent and other; use the id" in said


def test_files_that_are_no_workflow(client, tmp_path):
    assert "cannot be read" in refused(client())
    (tmp_path / "workflow.json").write_text("{")
    assert "is no workflow" in refused(client())
    for other in ([], {}, {"1": "two"}, {"1": {"inputs": {}}}):
        assert "no workflow in API format" in refused(client(workflow=other))


def test_a_canvas_file_is_told_from_the_api_format(tmp_path):
    command = [sys.executable, str(PACK / "scripts" / "queue_workflow.py")]
    canvas = PACK / "workflows" / "wan22_t2v_a14b.json"
    run = subprocess.run([*command, str(canvas)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and f"Use {canvas.parent / 'api' / canvas.name}" in run.stderr
    (tmp_path / "mine.json").write_text(canvas.read_text())
    run = subprocess.run([*command, str(tmp_path / "mine.json")], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "Workflow > Export (API)" in run.stderr and run.stderr.count("\n") == 1


def test_where_the_clip_cannot_be_written_nothing_is_queued(client, server, tmp_path):
    before = server.get("/prompt")["exec_info"], len(server.get("/history"))
    for out in (tmp_path / "missing" / "clip.mp4", tmp_path):
        assert "cannot be written" in refused(client("--out", out, workflow=t2v("client")))
    assert (server.get("/prompt")["exec_info"], len(server.get("/history"))) == before
    assert not (tmp_path / "clip.mp4").exists()


def test_what_the_server_refuses_is_one_line(client):
    said = refused(client(workflow=t2v("client", steps=-4)))
    assert "Wan22MoEKSampler (sample): Value -4 smaller than min of 1: steps" in said
    said = refused(client(workflow=t2v("client") | {"odd": node("NoSuchNode")}))
    assert "NoSuchNode" in said
    two = t2v("client") | {"other": node("Wan22VAEDecodeToVideo", samples=["sample", 0], fps=16, filename_prefix="x")}
    assert "only a part of the workflow" in refused(client(workflow=two))
    said = refused(client(workflow=t2v("client"), address="127.0.0.1:9"))
    assert "No ComfyUI answers at 127.0.0.1:9" in said


def test_what_fails_on_the_server_is_one_line(client):
    process = client(workflow=t2v("client") | {"latent": node("EmptyLatentImage", width=64, height=64, batch_size=1)})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.startswith("Wan22MoEKSampler: ") and err.count("\n") == 1


@pytest.mark.parametrize("cancelled", ["running", "waiting"])
def test_ctrl_c_ends_this_job_and_no_other(client, server, cancelled):
    seed = 1000 + time.time_ns() % 10**6
    if cancelled == "running":
        process, other = client(workflow=slow("mine", seed)), None
        _read_until(process, r"Wan22MoEKSampler \d+/200")
        other = server.queue(slow("other", seed + 1))
    else:
        other = server.queue(slow("other", seed))
        process = client(workflow=slow("mine", seed + 1))
        _read_until(process, "more in the queue")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == "Cancelled.\n"
    deadline = time.monotonic() + 30
    while True:
        jobs = server.get("/queue")
        if [job[1] for job in jobs["queue_running"]] == [other] and not jobs["queue_pending"]:
            break
        assert time.monotonic() < deadline, jobs
        time.sleep(0.1)
    server.post("/interrupt", {"prompt_id": other})
    server.wait(other)


def _read_until(process, pattern: str) -> None:
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(process.stderr.read())
