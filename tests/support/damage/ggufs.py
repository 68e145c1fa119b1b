"""GGUF files."""

import math
import struct

from hypothesis import strategies as st

from tests.support.damage.values import NUMBERS, PARTS, damaged_bytes

GGUF_TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 14: (256, 210), 24: (1, 1), 30: (1, 2)}
# Of metadata: the code of a type → how struct packs it.
GGUF_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@st.composite
def _gguf_value(draw, kind: int) -> bytes:
    """A metadata value of this type; numbers and lengths are sometimes wild."""
    wild = st.sampled_from(NUMBERS).map(lambda number: number % 2**64)
    if kind == 8:
        text = draw(st.binary(max_size=8))
        return struct.pack("<Q", draw(st.sampled_from([len(text)] * 5 + [draw(wild)]))) + text
    if kind == 9:
        of = draw(st.sampled_from([0, 4, 6, 8, 9, 13]))
        items = [draw(_gguf_value(of)) for _ in range(draw(st.integers(0, 3)))] if of in GGUF_NUMBERS or of == 8 else []
        return struct.pack("<IQ", of, draw(st.sampled_from([len(items)] * 5 + [draw(wild)]))) + b"".join(items)
    return draw(st.binary(min_size=8, max_size=8))[: struct.calcsize("<" + GGUF_NUMBERS.get(kind, "B"))]


@st.composite
def gguf(draw) -> dict[str, bytes]:
    entries = [(b"general.architecture", 8, _string(b"wan"))]
    for _ in range(draw(st.integers(0, 3))):
        key = draw(
            st.sampled_from(
                [b"general.name", b"general.alignment", b"tokenizer.ggml.tokens", b"comfy.gguf.orig_shape.a", b"k", b""]
            )
        )
        kind = draw(st.sampled_from([*GGUF_NUMBERS, 8, 9, 9, 13]))
        entries.append((key, kind, draw(_gguf_value(kind))))
    tensors, data = [], b""
    for name, shape in draw(st.sampled_from(PARTS)).items():
        kind = draw(
            st.sampled_from(
                [kind for kind, (block, _) in GGUF_TYPES.items() if shape and shape[-1] % block == 0] or [0]
            )
        )
        block, size = GGUF_TYPES[kind]
        dims, offset = shape[::-1], len(data)
        data += bytes(-(-(math.prod(shape) // block * size) // 32) * 32)
        if draw(st.sampled_from([False] * 6 + [True])):
            match draw(st.sampled_from(["dims", "kind", "offset", "more dims"])):
                case "dims" if dims:
                    dims[0] = draw(st.sampled_from(NUMBERS)) % 2**64
                case "kind":
                    kind = draw(st.integers(0, 40))
                case "offset":
                    offset = draw(st.sampled_from(NUMBERS)) % 2**64
                case "more dims":
                    dims = dims * draw(st.integers(2, 5))
        tensors.append(_string(name.encode()) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
    counts = [draw(st.sampled_from([n] * 12 + [n + 1, 2**32, 2**63])) for n in (len(tensors), len(entries))]
    head = struct.pack("<4sIQQ", b"GGUF", draw(st.sampled_from([3] * 8 + [2, 1, 4, 2**24])), *counts)
    head += b"".join(_string(key) + struct.pack("<I", kind) + value for key, kind, value in entries) + b"".join(tensors)
    return {"model.gguf": draw(damaged_bytes(head + bytes(-len(head) % 32) + data))}
