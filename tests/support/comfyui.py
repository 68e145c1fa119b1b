"""Real ComfyUI for tests: a server of it, and a client."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from scripts.canvas import prepare, server_command


class Server:
    """A running ComfyUI with this pack alone."""

    def __init__(self, base: Path, port: int, process):
        self.base, self.url, self.process = base, f"http://127.0.0.1:{port}", process
        self.startup_log = ""

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(errors="replace")

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict) -> tuple[int, dict]:
        """(status, answer); an error status is an answer too."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                raw = answer.read()
                return answer.status, json.loads(raw) if raw else {}
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def queue(self, prompt: dict) -> str:
        status, answer = self.post("/prompt", {"prompt": prompt, "client_id": str(uuid.uuid4())})
        assert status == 200 and not answer["node_errors"], json.dumps(answer, indent=1)[:3000]
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 300) -> dict:
        """The history entry of a finished prompt."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if history.get(prompt_id, {}).get("status", {}).get("completed") is not None:
                return history[prompt_id]
            assert self.process.poll() is None, "the server has died\n" + self.log[-3000:]
            time.sleep(0.1)
        raise TimeoutError(self.log[-3000:])

    def run(self, prompt: dict) -> dict:
        entry = self.wait(self.queue(prompt))
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)[-3000:]
        return entry

    def error(self, prompt: dict) -> str:
        """The message of a prompt that fails while it runs."""
        entry = self.wait(self.queue(prompt))
        assert entry["status"]["status_str"] == "error", entry["status"]
        return next(
            details["exception_message"] for kind, details in entry["status"]["messages"] if kind == "execution_error"
        )

    @staticmethod
    def executed(entry: dict) -> set[str]:
        """Ids of the nodes that ran, as opposed to those taken from the cache."""
        cached = next(details["nodes"] for kind, details in entry["status"]["messages"] if kind == "execution_cached")
        return set(entry["prompt"][2]) - set(cached)


@contextlib.contextmanager
def serve(comfyui: Path, base: Path):
    """A server over the folders in `base`, with this pack linked into its custom_nodes."""
    prepare(base)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*server_command(comfyui, base, port), "--cpu"]
    with (base / "server.log").open("w") as log:
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # enough for tiny models, and steadier beside other work
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=comfyui, env=one_thread)
    server = Server(base, port, process)
    try:
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                server.get("/system_stats")
                break
            assert process.poll() is None and time.monotonic() < deadline, server.log[-3000:]
            time.sleep(0.2)
        server.startup_log = server.log
        yield server
    finally:
        process.terminate()
        process.wait(30)
