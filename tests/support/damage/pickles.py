"""Pickles, in an archive as torch writes them today and in a stream as it did before 1.6."""

import io
import itertools
import math
import pickle
import struct
import zipfile

import torch
from hypothesis import strategies as st

from tests.support.damage.values import NAMES, NUMBERS, damaged_bytes


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return pickle.dumps(value, 2)[2:-1]


GLOBALS = [
    "collections\nOrderedDict",
    "collections\nCounter",
    "torch._utils\n_rebuild_tensor",
    "torch._utils\n_rebuild_tensor_v2",
    "torch._utils\n_rebuild_tensor_v3",
    "torch._utils\n_rebuild_parameter",
    "torch._utils\n_rebuild_sparse_tensor",
    "torch._utils\n_rebuild_meta_tensor_no_storage",
    "torch\nFloatStorage",
    "torch\nByteStorage",
    "torch.storage\nUntypedStorage",
    "torch\nTensor",
    "torch\nFloatTensor",
    "torch\nSize",
    "torch\nfloat8_e4m3fn",
    "torch\nfloat32",
    "builtins\nbytearray",
    "builtins\nset",
    "_codecs\nencode",
    "os\nsystem",
    "builtins\neval",
    "torch.nn.parameter\nParameter",
]
INSTRUCTIONS = [
    b"(",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b")",
    b"]",
    b"}",
    b"\x8f",
    b"a",
    b"e",
    b"s",
    b"u",
    b"N",
    b"\x88",
    b"\x89",
    b"R",
    b"b",
    b"Q",
    b"\x81",
    b"0",
    b"2",
    b".",
    b"h\0",
    b"h\1",
    b"q\0",
    b"q\1",
    b"I1\n",
    b"\x80\4",
    b"\x93",
    b"\x8c\1a",
    b"\x95\1\0\0\0\0\0\0\0",
]


@st.composite
def program(draw, storages: dict[str, tuple[str, int]], legacy: bool) -> bytes:
    """A pickle of tensors in these storages (key → type, number of elements), built from its instructions."""
    code = [b"\x80\2", b"}", b"("]
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=len(storages), max_size=6))
    for name, key in zip(names, itertools.cycle(storages)):
        kind, count = storages[key]
        shape = draw(st.sampled_from([[count], [1, count], [count, 1], [0], [], [count // 2, 2], [2, count // 2]]))
        stride = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
        code += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", b"("]
        code += [b"(", _text("storage"), f"ctorch\n{kind}Storage\n".encode(), _text(key), _text("cpu"), _number(count)]
        code += [b"N"] * legacy + [b"t", b"Q", _number(0)]
        for numbers in (shape, stride):
            code += [b"(", *(_number(number) for number in numbers), b"t"]
        code += [b"\x89", b"ccollections\nOrderedDict\n", b")", b"R", b"t", b"R"]
    code += [b"u", b"."]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 3]))):
        at = draw(st.integers(0, len(code) - 1))
        match draw(st.sampled_from(["number", "number", "number", "global", "drop", "twice", "insert", "swap"])):
            case "number":
                places = [k for k, part in enumerate(code) if part[:1] == b"J"] or [at]
                code[draw(st.sampled_from(places))] = _number(draw(st.sampled_from(NUMBERS)))
            case "global":
                places = [k for k, part in enumerate(code) if part[:1] == b"c"] or [at]
                code[draw(st.sampled_from(places))] = f"c{draw(st.sampled_from(GLOBALS))}\n".encode()
            case "drop" if len(code) > 1:
                del code[at]
            case "twice":
                code[at:at] = code[at : at + draw(st.integers(1, 12))]
            case "insert":
                code.insert(at, draw(st.sampled_from(INSTRUCTIONS)))
            case "swap":
                code[at], code[-at] = code[-at], code[at]
    return b"".join(code)


@st.composite
def storage_table(draw) -> dict[str, tuple[str, int]]:
    kinds = st.tuples(st.sampled_from(["Float", "BFloat16", "Byte", "Long", "Bool"]), st.integers(0, 12))
    return {str(key): draw(kinds) for key in range(draw(st.integers(1, 3)))}


SIZES = {"Float": 4, "BFloat16": 2, "Byte": 1, "Long": 8, "Bool": 1}


@st.composite
def archive(draw) -> dict[str, bytes]:
    """A .pth file of torch 1.6 and later."""
    storages = draw(storage_table())
    records = [("data.pkl", draw(program(storages, False))), ("byteorder", b"little"), ("version", b"3\n")]
    records += [(f"data/{key}", bytes(SIZES[kind] * count)) for key, (kind, count) in storages.items()]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        at = draw(st.integers(0, len(records) - 1))
        match draw(st.sampled_from(["name", "drop", "twice", "length", "bytes"])):
            case "name":
                names = [
                    "",
                    "/",
                    "DATA.PKL",
                    "data/",
                    "data/0",
                    "../x",
                    "constants.pkl",
                    ".format_version",
                    ".storage_alignment",
                ]
                records[at] = draw(st.sampled_from(names)), records[at][1]
            case "drop":
                del records[at]
            case "twice":
                records.append(records[at])
            case "length":
                records[at] = records[at][0], (records[at][1] * 2)[: draw(st.integers(0, 200))]
            case "bytes":
                records[at] = records[at][0], draw(damaged_bytes(records[at][1]))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", draw(st.sampled_from([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED]))) as file:
        for name, content in records:
            with file.open(zipfile.ZipInfo(f"m/{name}"), "w", force_zip64=draw(st.booleans())) as record:
                record.write(content)
    data = bytearray(data.getvalue())
    marks = [at for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7") for at in _all(data, mark)]
    for _ in range(draw(st.sampled_from([0, 0, 1])) if marks else 0):
        at = draw(st.sampled_from(marks)) + draw(st.integers(4, 46))
        width = draw(st.sampled_from([2, 4]))
        number = draw(st.sampled_from([*NUMBERS, len(data), *marks])) % 2 ** (8 * width)
        data[at : at + width] = number.to_bytes(width, "little")
    return {"model.pth": draw(damaged_bytes(bytes(data)))}


def _all(data: bytes, mark: bytes) -> list[int]:
    return [at for at in range(len(data)) if data[at : at + 4] == mark]


@st.composite
def stream(draw) -> dict[str, bytes]:
    """A .pth file from before torch 1.6."""
    storages = draw(storage_table())
    serialization = torch.serialization
    parts = [
        pickle.dumps(value, 2)
        for value in (serialization.MAGIC_NUMBER, serialization.PROTOCOL_VERSION, {"little_endian": True})
    ]
    parts += [draw(program(storages, True)), pickle.dumps(draw(st.permutations(list(storages))), 2)]
    for kind, count in storages.values():
        parts += [struct.pack("<q", count), bytes(SIZES[kind] * count)]
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(parts) - 1))
        parts[at] = draw(st.sampled_from([b"", parts[0], parts[-1], struct.pack("<q", 2**62), pickle.dumps(2**70, 2)]))
    return {"model.pth": draw(damaged_bytes(b"".join(parts)))}
