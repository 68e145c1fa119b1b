"""Names, shapes and values to build from and to damage with, and damage to bytes of any kind."""

import copy
import json

from hypothesis import strategies as st

from tests.support.small_parts import DIT, TEXT, VACE, VAE, lora_shapes, shapes_of

NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    8,
    64,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**61 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
]
_VALUES = [
    *NUMBERS,
    None,
    True,
    False,
    1.0,
    1e300,
    "",
    "x",
    "F32",
    [],
    [0],
    {},
    {"a": 1},
    [[]],
    [0, 4],
    [0, 2**63],
    "\ud800",
    "\0",
    "a" * 10_000,
    "\x1b[31m\n",
    ["x"] * 10_000,
    10**9,
    10**19,
]
VALUES = st.sampled_from(_VALUES).map(copy.deepcopy)
# The tensors that identify a part of the model, at small sizes; damage to their shapes reaches what infers its config.
PARTS = [
    {
        "head.modulation": [1, 2, 128],
        "head.head.weight": [64, 128],
        "patch_embedding.weight": [128, 16, 1, 2, 2],
        "blocks.0.ffn.0.weight": [8, 128],
        "text_embedding.0.weight": [128, 4],
        "time_embedding.0.weight": [128, 4],
    },
    {
        "decoder.middle.0.residual.0.gamma": [4, 1, 1, 1],
        "encoder.conv1.weight": [4, 3, 1, 1, 1],
        "conv2.weight": [16, 16, 1, 1, 1],
        "decoder.conv1.weight": [16, 16, 1, 1, 1],
    },
    {
        "token_embedding.weight": [8, 4],
        "blocks.0.pos_embedding.embedding.weight": [4, 2],
        "blocks.0.attn.q.weight": [4, 4],
        "blocks.0.ffn.fc1.weight": [8, 4],
    },
    {"a": [2], "é": [], "x.scale_weight": [0, 3], "blocks.0.self_attn.q.lora_down.weight": [2, 4]},
]
NAMES = [name for part in PARTS for name in part]
# Whole parts, which load; and LoRAs, which apply.
WHOLE = [dict(shapes_of(config)) for config in (DIT, VACE, VAE, TEXT)]
LORAS = [lora_shapes(layout) for layout in ("peft", "kohya", "pair")]
_MORE_NAMES = [
    "blocks.0.ffn.0.scale_weight",
    "patch_embedding.weight_scale",
    "patch_embedding.scale_weight",
    "blocks.0.self_attn.norm_q.scale_weight",
    "token_embedding.scale_weight",
    "blocks.0.ffn.0.comfy_quant",
    "scaled_fp8",
    "spiece_model",
    "blocks.1000.modulation",
    "blocks.x.modulation",
    "blocks..modulation",
    "vace_blocks.7.before_proj.weight",
    "img_emb.proj.0.weight",
    "diffusion_model.blocks.0.self_attn.q.dora_scale",
    "a" * 900,
    "\x1b[2J\n",
]


@st.composite
def altered(draw, parts: list[dict]) -> dict[str, list[int]]:
    """The names and shapes of one of these parts, sometimes with a few changes that a header can state."""
    shapes = {name: list(shape) for name, shape in draw(st.sampled_from(parts)).items()}
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        name = draw(st.sampled_from(list(shapes)))
        match draw(st.sampled_from(["shape", "size", "drop", "more", "rename", "prefix", "layers"])):
            case "shape":
                shapes[name] = draw(st.lists(st.integers(0, 5), max_size=6))
            case "size" if shapes[name]:
                at = draw(st.integers(0, len(shapes[name]) - 1))
                shapes[name][at] = draw(st.sampled_from([0, 1, 3, shapes[name][at] + 1, 2 * shapes[name][at]]))
            case "drop" if len(shapes) > 1:
                del shapes[name]
            case "more":
                shapes[draw(st.sampled_from(_MORE_NAMES))] = draw(st.lists(st.integers(0, 9), max_size=2))
            case "rename":
                shapes[draw(st.sampled_from([*_MORE_NAMES, *NAMES]))] = shapes.pop(name)
            case "prefix":
                prefix = draw(st.sampled_from(["model.diffusion_model.", "vae.", "text_encoders.umt5xxl.transformer."]))
                shapes = {prefix + name: shape for name, shape in shapes.items()}
            case "layers":
                count = draw(st.sampled_from([3, 300, 2000]))
                shapes |= {f"blocks.{n}.modulation": [1, 6, 0] for n in range(2, count)}
    return shapes


@st.composite
def damaged_json(draw, value: dict) -> bytes:
    """A JSON object with a few of its values replaced, dropped or put in."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        holders = [holder for holder in _holders(value) if holder]
        if not holders:
            break
        holder = draw(st.sampled_from(holders[:50]))
        key = draw(st.sampled_from(list(holder)[:50] if isinstance(holder, dict) else range(min(len(holder), 50))))
        match draw(st.sampled_from(["value", "value", "value", "drop", "more", "repeat"])):
            case "value":
                holder[key] = draw(VALUES)
            case "drop":
                del holder[key]
            case "more" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["", "x", "a" * 10_000, "\ud800", "_class_name"]))] = draw(VALUES)
            case "repeat" if isinstance(holder, list):
                holder.extend(copy.deepcopy(holder[key]) for _ in range(2000))
    return json.dumps(value).encode()


def _holders(value: object) -> list:
    """A container and all containers in it."""
    if not isinstance(value, dict | list):
        return []
    inside = value.values() if isinstance(value, dict) else value[:50]
    return [value, *(holder for item in inside for holder in _holders(item))]


@st.composite
def damaged_bytes(draw, data: bytes) -> bytes:
    """Cut, lengthened, with bytes changed, moved or put in."""
    data = bytearray(data)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "append", "flip", "number", "insert", "delete", "copy"])):
            case "cut":
                del data[at:]
            case "append":
                data += draw(st.binary(max_size=40))
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "number":
                width = draw(st.sampled_from([1, 2, 4, 8]))
                data[at : at + width] = (draw(st.sampled_from(NUMBERS)) % 2 ** (8 * width)).to_bytes(width, "little")
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case "delete":
                del data[at : at + draw(st.integers(1, 20))]
            case "copy":
                data[at:at] = data[draw(st.integers(0, len(data))) :][: draw(st.integers(1, 100))]
    return bytes(data)
