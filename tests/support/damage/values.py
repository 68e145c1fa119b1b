"""Names, shapes and values to build from and to damage with, and damage to bytes of any kind."""

import copy

from hypothesis import strategies as st

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
    "a" * 2000,
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


@st.composite
def damaged_bytes(draw, data: bytes) -> bytes:
    """Cut, lengthened, with bytes changed, moved or put in."""
    data = bytearray(data)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
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
