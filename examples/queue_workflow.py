"""Queue an API-format workflow on a ComfyUI server, follow it, and save the clip.

    python examples/queue_workflow.py workflow_api.json --prompt "A cat walks through the snow" --seed 7 --out cat.mp4

Needs nothing but Python. The first prompt node and the first sampler of the workflow are changed.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid


def call(server: str, path: str, body=None) -> dict:
    """GET, or POST with a body; an error answer is printed as ComfyUI words it."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{server} refused the workflow:\n{json.dumps(json.load(error), indent=2, ensure_ascii=False)}")
    except urllib.error.URLError as error:
        sys.exit(f"No ComfyUI answers at {server} ({error.reason}). Start it first, or pass --server.")


def change(workflow: dict, prompt: str | None, seed: int | None) -> None:
    """Put the prompt and the seed into the first node that takes each."""
    for name, value in (("positive", prompt), ("seed", seed)):
        if value is None:
            continue
        homes = [node["inputs"] for node in workflow.values() if isinstance(node["inputs"].get(name), (str, int))]
        if not homes:
            sys.exit(f"The workflow has no node with its own {name}.")
        homes[0][name] = value


def follow(server: str, prompt_id: str) -> dict:
    """Wait for the prompt, printing what the queue is doing; the history entry."""
    shown = None
    while True:
        history = call(server, f"/history/{prompt_id}")
        if prompt_id in history:
            return history[prompt_id]
        queue = call(server, "/queue")
        waiting = sum(1 for job in queue["queue_pending"] if job[0] is not None)
        state = "running" if any(job[1] == prompt_id for job in queue["queue_running"]) else f"{waiting} in the queue"
        if state != shown:
            print(state, flush=True)
            shown = state
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflow", help="workflow in API format (Workflow > Export (API) in ComfyUI)")
    parser.add_argument("--prompt", help="what the clip shows")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", default="clip.mp4", help="default: %(default)s")
    parser.add_argument("--server", default="127.0.0.1:8188", help="default: %(default)s")
    options = parser.parse_args()

    with open(options.workflow, encoding="utf-8") as file:
        workflow = json.load(file)
    change(workflow, options.prompt, options.seed)
    queued = call(options.server, "/prompt", {"prompt": workflow, "client_id": str(uuid.uuid4())})
    entry = follow(options.server, queued["prompt_id"])
    for kind, details in entry["status"]["messages"]:
        if kind == "execution_error":
            sys.exit(f"{details['node_type']}: {details['exception_message']}")
    files = [file for output in entry["outputs"].values() for file in output.get("images", [])]
    if not files:
        sys.exit("The workflow wrote no file.")
    query = urllib.parse.urlencode({key: files[-1][key] for key in ("filename", "subfolder", "type")})
    with urllib.request.urlopen(f"http://{options.server}/view?{query}") as answer, open(options.out, "wb") as out:
        out.write(answer.read())
    print(options.out)


if __name__ == "__main__":
    main()
