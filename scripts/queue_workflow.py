"""Queue an API-format workflow on a ComfyUI server, follow it, and save the clip.

    pip install websocket-client
    python scripts/queue_workflow.py workflows/api/wan22_t2v_a14b.json --prompt "A cat in snow" --seed 7 --out cat.mp4

`--prompt` and `--seed` change the first prompt node and the first sampler; `--set` changes any input of any node.
Ctrl+C takes this job, and no other, off the server. Exit codes: 0 saved, 1 not, 130 cancelled.
"""

import argparse
import contextlib
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websocket

CANCELLED = 130  # the exit code of a program that Ctrl+C has ended
LONGEST = 300  # characters of somebody else's words in a message

Workflow = dict[str, dict[str, Any]]  # id → {"class_type", "inputs", "_meta"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workflow", type=Path, help="workflow in API format (Workflow > Export (API) in ComfyUI)")
    parser.add_argument("--prompt", help="what the clip shows")
    parser.add_argument("--seed", type=int)
    change = "an input of a node, by its id, class or title; may be repeated"
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="NODE.INPUT=VALUE", help=change)
    parser.add_argument("--out", type=Path, default=Path("clip.mp4"), help="default: %(default)s")
    parser.add_argument("--server", default="127.0.0.1:8188", help="default: %(default)s")
    options = parser.parse_args()

    workflow = read_workflow(options.workflow)
    for name, value in (("positive", options.prompt), ("seed", options.seed)):
        if value is not None:
            change_first(workflow, name, value)
    for change in options.changes:
        change_input(workflow, change)
    check_writable(options.out)

    job = str(uuid.uuid4())
    try:
        file = run(options.server, workflow, job)
        save(options.server, file, options.out)
    except KeyboardInterrupt:
        cancel(options.server, job)
        print("Cancelled.", file=sys.stderr)
        sys.exit(CANCELLED)
    print(options.out)


def run(server: str, workflow: Workflow, job: str) -> dict:
    """Queue the workflow under the id `job`, follow it, and return the last file that it made."""
    client = str(uuid.uuid4())
    call(server, "/system_stats")
    try:
        with contextlib.closing(websocket.create_connection(f"ws://{server}/ws?clientId={client}")) as socket:
            answer = call(server, "/prompt", {"prompt": workflow, "client_id": client, "prompt_id": job})
            if answer.get("node_errors"):  # the server would make the outputs that are fine and leave the others out
                cancel(server, job)
                sys.exit(f"{server} takes only a part of the workflow: {refusal(json.dumps(answer))}")
            return follow(socket, job, workflow)
    except (websocket.WebSocketException, ConnectionError) as error:
        sys.exit(f"The connection to {server} is gone ({error}). Look at the server, it may still make the clip.")


def read_workflow(path: Path) -> Workflow:
    """The graph of a file in API format; exits in one line where it is none."""
    try:
        workflow = json.loads(path.read_text("utf-8"))
    except OSError as error:
        sys.exit(f"{path} cannot be read: {error.strerror}.")
    except ValueError as error:
        sys.exit(f"{path} is no workflow: {error}.")
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        beside = path.parent / "api" / path.name
        instead = f"Use {beside}" if beside.is_file() else "Save it with Workflow > Export (API) in ComfyUI"
        sys.exit(f"{path} is a workflow of the canvas, and the server takes the API format. {instead}.")
    nodes = workflow.values() if isinstance(workflow, dict) and workflow else [None]
    if not all(
        isinstance(node, dict) and isinstance(node.get("inputs"), dict) and "class_type" in node for node in nodes
    ):
        sys.exit(f"{path} is no workflow in API format. Save one with Workflow > Export (API) in ComfyUI.")
    return workflow


def change_first(workflow: Workflow, name: str, value: Any) -> None:
    """Set an input in the first node that has it as a widget, not as a link."""
    homes = [node["inputs"] for node in workflow.values() if isinstance(node["inputs"].get(name), (str, int))]
    if not homes:
        sys.exit(f"The workflow has no node with its own {name}.")
    homes[0][name] = value


def change_input(workflow: Workflow, change: str) -> None:
    """Set one input, `change` being NODE.INPUT=VALUE with the node's id, class or title."""
    target, separator, text = change.partition("=")
    if not separator or "." not in target:
        sys.exit(f"--set {change}: write NODE.INPUT=VALUE, such as 9.steps=20 or Wan22MoEKSampler.steps=20.")
    homes = {
        (id_, name): node
        for id_, node in workflow.items()
        for node_name in (id_, node["class_type"], title(node))
        for name in node["inputs"]
        if target == f"{node_name}.{name}"
    }
    if len(homes) != 1:
        known = ", ".join(f"{id_} {title(node)}" for id_, node in workflow.items())
        found = (
            f"fits nodes {' and '.join(id_ for id_, _ in homes)}; use the id" if homes else f"fits no node of {known}"
        )
        sys.exit(f"--set {change}: {target} {found}.")
    (((_, name), node),) = homes.items()
    if isinstance(node["inputs"][name], list):
        sys.exit(f"--set {change}: {target} is linked to another node; change that one.")
    node["inputs"][name] = parsed(text, node["inputs"][name], change)


def parsed(text: str, old: Any, change: str) -> Any:
    """A value as text, in the type of the one that it replaces."""
    if isinstance(old, str):
        return text
    try:
        value = json.loads(text.lower() if isinstance(old, bool) else text)
    except ValueError:
        value = None
    kinds = bool if isinstance(old, bool) else (int, float)
    if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(old, bool)):
        sys.exit(f"--set {change}: {text!r} where {'true or false' if isinstance(old, bool) else 'a number'} belongs.")
    return value


def title(node: dict) -> str:
    return node.get("_meta", {}).get("title", node["class_type"])


def check_writable(path: Path) -> None:
    """Exits where the clip could not be saved, before anything is computed for it."""
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        sys.exit(f"{path} cannot be written: {error.strerror}.")
    if not existed:
        path.unlink()


def call(server: str, path: str, body: Any = None) -> Any:
    """GET, or POST with a body: what the server answers; exits where there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        sys.exit(f"{server} answers {path} with {error.code}: {refusal(error.read())}")
    except (OSError, ValueError) as error:
        sys.exit(f"No ComfyUI answers at {server} ({error}). Start it first, or pass --server.")


def refusal(answer: bytes | str) -> str:
    """What is wrong with a workflow, in a line: the first fault of each node, else of the whole."""
    try:
        told = json.loads(answer)
        faults = [
            f"{node['class_type']} ({id_}): {node['errors'][0]['message']}: {node['errors'][0]['details']}"
            for id_, node in (told.get("node_errors") or {}).items()
        ]
        words = "; ".join(faults) or f"{told['error']['message']} {told['error']['details']}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        words = answer if isinstance(answer, str) else answer.decode(errors="replace")
    return one_line(words)


def one_line(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def cancel(server: str, job: str) -> None:
    """Take a job off the server, whether it waits or runs; jobs of others go on."""
    with contextlib.suppress(SystemExit):  # a server that is gone has no job to cancel
        call(server, "/queue", {"delete": [job]})
        call(server, "/interrupt", {"prompt_id": job})


@dataclass
class Pace:
    """How fast the steps of a node follow each other."""

    node: str | None = None
    first: tuple[float, int] = (0.0, 0)  # when the first progress came, and which step it was

    def told(self, node: str, value: int, total: int) -> str:
        """Such as "3.2 s a step, 1:30 left"; nothing where it cannot be known yet."""
        now = time.monotonic()
        if node != self.node:
            self.node, self.first = node, (now, value)
        steps = value - self.first[1]
        if steps <= 0:
            return ""
        each = (now - self.first[0]) / steps
        minutes, seconds = divmod(round(each * (total - value)), 60)
        return f"{each:.1f} s a step, {minutes}:{seconds:02} left"


def follow(socket: websocket.WebSocket, job: str, workflow: Workflow) -> dict:
    """Print the progress of the job until it has succeeded; the last file that it made. Exits when it fails."""
    node, expert, line, files, pace = "", "", "", [], Pace()
    while True:
        message = socket.recv()
        if isinstance(message, bytes):  # a preview
            continue
        event = json.loads(message)
        kind, data = event["type"], event["data"]
        now = line
        if kind == "status":
            waiting = data["status"]["exec_info"]["queue_remaining"] - 1
            now = f"{waiting} more in the queue" if waiting > 0 and not node else line
        elif kind == "wan22.sampling":
            expert = f"{data['expert']}-noise expert" if "expert" in data else expert
            continue
        elif data.get("prompt_id") != job:
            continue
        elif kind == "executing" and data["node"]:
            now, expert = title(workflow[data["node"]]), ""
            node = now
        elif kind == "progress":
            value, total = data["value"], data["max"]
            notes = ", ".join(note for note in (expert, pace.told(node, value, total)) if note)
            now = f"{node} {value}/{total}" + (f" ({notes})" if notes else "")
        elif kind == "execution_error":
            sys.exit(f"{data['node_type']}: {one_line(data['exception_message'])}")
        elif kind == "execution_interrupted":
            sys.exit("The job was cancelled on the server.")
        elif kind == "executed":
            files += (data["output"] or {}).get("images", [])
        elif kind == "execution_success":
            if not files:
                sys.exit("The workflow wrote no file.")
            return files[-1]
        if now != line:
            print(now, flush=True)
            line = now


def save(server: str, file: dict, path: Path) -> None:
    query = urllib.parse.urlencode({key: file[key] for key in ("filename", "subfolder", "type")})
    try:
        with urllib.request.urlopen(f"http://{server}/view?{query}") as answer:
            path.write_bytes(answer.read())
    except OSError as error:
        sys.exit(f"{file['filename']} is on the server, and cannot be saved as {path}: {error}.")


if __name__ == "__main__":
    main()
