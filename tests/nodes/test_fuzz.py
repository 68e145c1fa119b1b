"""Malformed prompts through the API: a readable error each, the server stays up, nothing is written elsewhere."""

import copy
import random

from tests.support.graphs import node, t2v

VALUES = [
    None,
    True,
    [],
    {},
    "",
    "x",
    "NaN",
    "..",
    "../../../etc/passwd",
    "a" * 400,
    "nul\0byte",
    "\u202e",
    -1,
    0,
    1,
    7,
    10**9,
    -(10**18),
    2**64,
    1e308,
    -1e308,
    0.1,
    "Infinity",
    ["experts", 0],
    ["nothing", 0],
    ["experts"],
    "C:\\windows\\x",
    "/etc/passwd",
]


GRAPH = t2v("fuzz", high_noise=["loras", 0], low_noise=["loras", 1]) | {
    "loras": node(
        "Wan22LoraPair",
        high_noise=["experts", 0],
        low_noise=["experts", 1],
        lora_1="none",
        strength_high_1=1.0,
        strength_low_1=0.0,
        lora_2="wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors",
        strength_high_2=0.0,
    ),
}


def malformed(rng):
    graph = copy.deepcopy(GRAPH)
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(graph))
        inputs = graph[name]["inputs"]
        kind = rng.random()
        if kind < 0.75 and inputs:
            inputs[rng.choice(list(inputs))] = rng.choice(VALUES)
        elif kind < 0.85 and inputs:
            del inputs[rng.choice(list(inputs))]
        elif kind < 0.95:
            # Not a link: an unknown input that is linked to a missing output ends ComfyUI's own worker thread.
            value = rng.choice([value for value in VALUES if not isinstance(value, list)])
            inputs[rng.choice(["extra", "seed", "tile_size", "__class__", "lora_9", "lora_1"])] = value
        else:
            graph[name]["class_type"] = rng.choice(["Wan22Nothing", "", 7, "Wan22VCU"])
    return graph


def test_five_hundred_malformed_prompts(server):
    rng = random.Random(0)
    outside = {path for path in server.base.parent.rglob("*") if "output" not in path.parts}
    refused = ran = 0
    for _ in range(500):
        status, answer = server.post("/prompt", {"prompt": malformed(rng)})
        assert server.process.poll() is None
        if status == 200 and not answer["node_errors"]:
            entry = server.wait(answer["prompt_id"])
            ran += 1
            for kind, details in entry["status"]["messages"]:
                if kind == "execution_error":
                    assert details["exception_message"].strip() and "Traceback" not in details["exception_message"]
            continue
        refused += 1
        errors = [e for node in answer.get("node_errors", {}).values() for e in node["errors"]]
        assert (answer.get("error") or {}).get("message") or errors or status >= 400
    assert refused > 250 and refused + ran == 500
    new = {path for path in server.base.parent.rglob("*") if "output" not in path.parts} - outside
    allowed = ("__pycache__", "temp", "server.log", "user")
    assert not [path for path in new if not any(part in allowed for part in path.parts)]
    server.run(t2v("after-fuzz"))
