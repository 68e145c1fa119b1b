"""Queue an API-format workflow on a ComfyUI server, follow it, and save the clip.

    pip install websocket-client
    python scripts/queue_workflow.py workflows/api/wan22_t2v_a14b.json --prompt "A cat in snow" --seed 7 --out cat.mp4

The first prompt node and the first sampler of the workflow are changed.
"""

import argparse
import json
import struct
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import websocket

TEXT = 3  # type of ComfyUI's binary messages that carry text


def call(server: str, path: str, body=None) -> dict:
    """GET, or POST with a body; where the server answers with an error, exits with ComfyUI's own words."""
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
    """Set the prompt and the seed, each in the first node that has it as a widget, not as a link."""
    for name, value in (("positive", prompt), ("seed", seed)):
        if value is None:
            continue
        homes = [node["inputs"] for node in workflow.values() if isinstance(node["inputs"].get(name), (str, int))]
        if not homes:
            sys.exit(f"The workflow has no node with its own {name}.")
        homes[0][name] = value


def follow(socket: websocket.WebSocket, prompt_id: str, workflow: dict) -> list[dict]:
    """Print the progress of the prompt until it has succeeded, and return the files it made; exits when it fails."""
    title, expert, line, files = "", "", "", []
    while True:
        message = socket.recv()
        if isinstance(message, bytes):
            kind, name = struct.unpack(">II", message[:8])
            if kind == TEXT:  # the sampler says which expert is at work
                expert = message[8 + name :].decode(errors="replace")
            continue
        event = json.loads(message)
        kind, data = event["type"], event["data"]
        if kind == "status":
            waiting = data["status"]["exec_info"]["queue_remaining"] - 1
            now = f"{waiting} more in the queue" if waiting > 0 and not title else line
        elif data.get("prompt_id") != prompt_id:
            continue
        elif kind == "executing" and data["node"]:
            node = workflow[data["node"]]
            title, expert = node.get("_meta", {}).get("title", node["class_type"]), ""
            now = title
        elif kind == "progress":
            now = f"{title} {data['value']}/{data['max']}" + (f" ({expert})" if expert else "")
        elif kind == "execution_error":
            sys.exit(f"{data['node_type']}: {data['exception_message']}")
        elif kind == "execution_interrupted":
            sys.exit("The prompt was cancelled on the server.")
        elif kind == "executed":
            files += (data["output"] or {}).get("images", [])
            continue
        elif kind == "execution_success":
            return files
        else:
            continue
        if now != line:
            print(now, flush=True)
            line = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflow", help="workflow in API format (Workflow > Export (API) in ComfyUI)")
    parser.add_argument("--prompt", help="what the clip shows")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", default="clip.mp4", help="default: %(default)s")
    parser.add_argument("--server", default="127.0.0.1:8188", help="default: %(default)s")
    options = parser.parse_args()

    workflow = json.loads(Path(options.workflow).read_text("utf-8"))
    change(workflow, options.prompt, options.seed)
    client = str(uuid.uuid4())
    call(options.server, "/system_stats")
    socket = websocket.create_connection(f"ws://{options.server}/ws?clientId={client}")
    queued = call(options.server, "/prompt", {"prompt": workflow, "client_id": client})
    try:
        files = follow(socket, queued["prompt_id"], workflow)
    except websocket.WebSocketException as error:
        sys.exit(
            f"The connection to {options.server} is gone ({error}). Look at the server, it may still make the clip."
        )
    finally:
        socket.close()
    if not files:
        sys.exit("The workflow wrote no file.")
    query = urllib.parse.urlencode({key: files[-1][key] for key in ("filename", "subfolder", "type")})
    with urllib.request.urlopen(f"http://{options.server}/view?{query}") as answer:
        Path(options.out).write_bytes(answer.read())
    print(options.out)


if __name__ == "__main__":
    main()
