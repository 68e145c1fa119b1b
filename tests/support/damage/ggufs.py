"""GGUF files."""

import math
import struct

from hypothesis import strategies as st

from tests.support.damage.values import NUMBERS, PARTS, WHOLE, altered, damaged_bytes

GGUF_TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 14: (256, 210), 24: (1, 1), 30: (1, 2)}
# Of metadata: the code of a type → how struct packs it.
GGUF_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEYS = ["general.name", "general.alignment", "comfy.gguf.orig_shape.a", "k", "", "k" * 1000, "\x1b[2J\n"]
_TOKENIZER = {  # key → type of the elements of its array, and some
    "tokenizer.ggml.tokens": (_STRING, ["<pad>", "</s>", "<unk>", "▁", "a", "▁red", "t", "h", "e"]),
    "tokenizer.ggml.scores": (6, [0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]),
    "tokenizer.ggml.token_type": (5, [3, 3, 2, 1, 1, 1, 1, 1, 1]),
    "tokenizer.ggml.precompiled_charsmap": (0, [0] * 8),
}

Entry = tuple[str, int, bytes]  # key, code of its type, value


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def array(kind: int, items: list, length: int | None = None) -> bytes:
    packed = [
        string(item.encode()) if kind == _STRING else struct.pack("<" + GGUF_NUMBERS[kind], item) for item in items
    ]
    return struct.pack("<IQ", kind, len(items) if length is None else length) + b"".join(packed)


def gguf_file(tensors: list[bytes], entries: list[Entry], data: bytes, version: int = 3, more: int = 0) -> bytes:
    """
    Args:
        tensors: their entries in the header, see `tensor_entry`.
        more: how many more of both the header states.
    """
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors) + more, len(entries) + more)
    head += b"".join(string(key.encode()) + struct.pack("<I", kind) + value for key, kind, value in entries)
    head += b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def tensor_entry(name: str, dims: list[int], kind: int, offset: int) -> bytes:
    return string(name.encode()) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def tokenizer_entries() -> list[Entry]:
    """Those of a small tokenizer that is whole."""
    return [(key, _ARRAY, array(*value)) for key, value in _TOKENIZER.items() if "charsmap" not in key]


@st.composite
def _value(draw, kind: int) -> bytes:
    """A metadata value of this type; numbers and lengths are sometimes wild."""
    wild = st.sampled_from(NUMBERS).map(lambda number: number % 2**64)
    if kind == _STRING:
        text = draw(st.binary(max_size=8) | st.just(b"x" * 10_000))
        return struct.pack("<Q", draw(st.sampled_from([len(text)] * 5 + [draw(wild)]))) + text
    if kind == _ARRAY:
        of = draw(st.sampled_from([0, 4, 6, 8, 9, 13]))
        items = [draw(_value(of)) for _ in range(draw(st.integers(0, 3)))] if of in GGUF_NUMBERS or of == 8 else []
        return struct.pack("<IQ", of, draw(st.sampled_from([len(items)] * 5 + [draw(wild)]))) + b"".join(items)
    return draw(st.binary(min_size=8, max_size=8))[: struct.calcsize("<" + GGUF_NUMBERS.get(kind, "B"))]


@st.composite
def _tokenizer(draw) -> list[Entry]:
    """The arrays of a tokenizer, one or two of them of other types, lengths or values."""
    arrays = {key: (kind, list(items), None) for key, (kind, items) in _TOKENIZER.items()}
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        key = draw(st.sampled_from(list(arrays)))
        kind, items, length = arrays[key]
        match draw(st.sampled_from(["type", "drop", "longer", "shorter", "value", "length"])):
            case "type":
                kind = draw(st.sampled_from([0, 1, 5, 6, 7, 12, _STRING]))
                items = ["x"] * len(items) if kind == _STRING else [1] * len(items)
            case "drop":
                arrays.pop(key)
                continue
            case "longer":
                items = items * draw(st.sampled_from([2, 500]))
            case "shorter":
                items = items[: draw(st.integers(0, 8))]
            case "value":
                wild = {
                    _STRING: ["", "\0", "a" * 10_000, "\n"],
                    6: [math.nan, math.inf, -1e38, 1e38],
                    5: [-1, 0, 7, 2**31 - 1, -(2**31)],
                }
                if kind in wild and items:
                    items[draw(st.integers(0, len(items) - 1))] = draw(st.sampled_from(wild[kind]))
            case "length":
                length = draw(st.sampled_from(NUMBERS)) % 2**64
        arrays[key] = kind, items, length
    return [(key, _ARRAY, array(*value)) for key, value in arrays.items()]


@st.composite
def gguf(draw) -> dict[str, bytes]:
    entries: list[Entry] = [("general.architecture", _STRING, string(draw(st.sampled_from([b"wan", b"x" * 10_000]))))]
    for key in draw(st.lists(st.sampled_from(_KEYS), max_size=2, unique=draw(st.integers(0, 5)) > 0)):
        kind = draw(st.sampled_from([*GGUF_NUMBERS, 8, 9, 9, 13]))
        entries.append((key, kind, draw(_value(kind))))
    if draw(st.booleans()):
        entries += draw(_tokenizer())
    tensors, data = [], b""
    for name, shape in draw(altered([*PARTS, *WHOLE])).items():
        fits = [kind for kind, (block, _) in GGUF_TYPES.items() if shape and shape[-1] % block == 0]
        kind = draw(st.sampled_from(fits)) if fits and draw(st.booleans()) else 0
        block, size = GGUF_TYPES[kind]
        dims, offset = shape[::-1], len(data)
        data += bytes(-(-(math.prod(shape) // block * size) // 32) * 32)
        if draw(st.sampled_from([False] * 30 + [True])):
            match draw(st.sampled_from(["dims", "kind", "offset", "more dims", "original"])):
                case "dims" if dims:
                    dims[0] = draw(st.sampled_from(NUMBERS)) % 2**64
                case "kind":
                    kind = draw(st.integers(0, 40))
                case "offset":
                    offset = draw(st.sampled_from(NUMBERS)) % 2**64
                case "more dims":
                    dims = dims * draw(st.integers(2, 5))
                case "original":
                    shape = draw(st.lists(st.sampled_from([*shape, 1, 2, 0, -1]), max_size=9))
                    entries.append((f"comfy.gguf.orig_shape.{name}", _ARRAY, array(5, shape)))
        tensors.append(tensor_entry(name, dims, kind, offset))
    version = draw(st.sampled_from([3] * 20 + [2, 1, 4, 2**24]))
    more = draw(st.sampled_from([0] * 20 + [1, 2**32]))
    return {"model.gguf": draw(damaged_bytes(gguf_file(tensors, entries, data, version, more)))}
