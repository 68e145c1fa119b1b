"""Weight files that are built valid and then damaged, as hypothesis strategies.

A builder draws {file name: bytes}. BUILDERS is where a new format is added; its valid files are drawn where no damage is.
"""

import copy
import io
import itertools
import json
import math
import pickle
import struct
import zipfile

import torch
from hypothesis import strategies as st

NUMBERS = [0, 1, -1, 2, 7, 8, 64, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**61 - 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
_VALUES = [*NUMBERS, None, True, False, 1.0, 1e300, "", "x", "F32", [], [0], {}, {"a": 1}, [[]], [0, 4], [0, 2**63], "\ud800", "\0", "a" * 2000]
VALUES = st.sampled_from(_VALUES).map(copy.deepcopy)
DTYPES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1, "BOOL": 1, "F64": 8}
# The tensors that tell a part of the model apart, at small sizes; damage to their shapes reaches what infers a model's size.
PARTS = [
    {
        "head.modulation": [1, 2, 128], "head.head.weight": [64, 128], "patch_embedding.weight": [128, 16, 1, 2, 2],
        "blocks.0.ffn.0.weight": [8, 128], "text_embedding.0.weight": [128, 4], "time_embedding.0.weight": [128, 4],
    },
    {
        "decoder.middle.0.residual.0.gamma": [4, 1, 1, 1], "encoder.conv1.weight": [4, 3, 1, 1, 1], "conv2.weight": [16, 16, 1, 1, 1],
        "decoder.conv1.weight": [16, 16, 1, 1, 1],
    },
    {
        "token_embedding.weight": [8, 4], "blocks.0.pos_embedding.embedding.weight": [4, 2], "blocks.0.attn.q.weight": [4, 4],
        "blocks.0.ffn.fc1.weight": [8, 4],
    },
    {"a": [2], "é": [], "x.scale_weight": [0, 3], "blocks.0.self_attn.q.lora_down.weight": [2, 4]},
]  # fmt: skip
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


def header_of(shapes: dict[str, list[int]], dtypes: list[str]) -> tuple[list, int]:
    """Entries of a valid header, and how many bytes of data follow it."""
    entries, end = [], 0
    for (name, shape), dtype in zip(shapes.items(), itertools.cycle(dtypes)):
        first, end = end, end + DTYPES[dtype] * math.prod(shape)
        entries.append([name, {"dtype": dtype, "shape": list(shape), "data_offsets": [first, end]}])
    return entries, end


def file_of(entries: list, size: int, longer: int = 0) -> bytes:
    header = ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in entries) + "}").encode()
    return struct.pack("<Q", max(0, len(header) + longer)) + header + bytes(size)


@st.composite
def safetensors(draw) -> dict[str, bytes]:
    shapes = dict(draw(st.sampled_from(PARTS)))
    for name in draw(st.lists(st.sampled_from(list(shapes)), max_size=1)):
        shapes[name] = draw(st.lists(st.integers(0, 5), max_size=6))
    entries, size = header_of(shapes, draw(st.lists(st.sampled_from(list(DTYPES)), min_size=1, max_size=3)))
    metadata = draw(st.sampled_from([None, None, {}, {"title": "high noise"}, {"x": 3}, "x"]))
    if metadata is not None:
        entries.insert(0, ["__metadata__", metadata])
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        entry = draw(st.sampled_from(entries))
        fields = entry[1] if isinstance(entry[1], dict) else {}
        match draw(st.sampled_from(["value", "element", "element", "offset", "drop", "extra", "twice", "name", "replace"])):
            case "value" if fields:
                fields[draw(st.sampled_from(list(fields)))] = draw(VALUES)
            case "element":
                numbers = fields.get(draw(st.sampled_from(["shape", "data_offsets"])))
                if isinstance(numbers, list) and numbers:
                    numbers[draw(st.integers(0, len(numbers) - 1))] = draw(VALUES)
            case "offset" if isinstance(fields.get("data_offsets"), list):
                by = draw(st.sampled_from([-1, 1, 4, -4, 2**63]))
                fields["data_offsets"] = [offset + by if type(offset) is int else offset for offset in fields["data_offsets"]]
            case "drop" if fields:
                del fields[draw(st.sampled_from(list(fields)))]
            case "extra":
                fields[draw(st.sampled_from(["", "x", "dtype ", "stride"]))] = draw(VALUES)
            case "twice":
                entries.append(list(entry))
            case "name":
                entry[0] = draw(st.sampled_from(["", "\0", "\ud800", "a" * 2000, "__metadata__", *NAMES]))
            case "replace":
                entry[1] = draw(VALUES)
    longer = draw(st.sampled_from([0] * 12 + [-1, 1, 2**20, 2**40]))
    return {"model.safetensors": draw(damaged_bytes(file_of(entries, size, longer)))}


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return pickle.dumps(value, 2)[2:-1]


GLOBALS = [
    "collections\nOrderedDict", "collections\nCounter", "torch._utils\n_rebuild_tensor", "torch._utils\n_rebuild_tensor_v2",
    "torch._utils\n_rebuild_tensor_v3", "torch._utils\n_rebuild_parameter", "torch._utils\n_rebuild_sparse_tensor",
    "torch._utils\n_rebuild_meta_tensor_no_storage", "torch\nFloatStorage", "torch\nByteStorage", "torch.storage\nUntypedStorage",
    "torch\nTensor", "torch\nFloatTensor", "torch\nSize", "torch\nfloat8_e4m3fn", "torch\nfloat32", "builtins\nbytearray", "builtins\nset",
    "_codecs\nencode", "os\nsystem", "builtins\neval", "torch.nn.parameter\nParameter",
]  # fmt: skip
INSTRUCTIONS = [
    b"(", b"t", b"\x85", b"\x86", b"\x87", b")", b"]", b"}", b"\x8f", b"a", b"e", b"s", b"u", b"N", b"\x88", b"\x89", b"R", b"b", b"Q",
    b"\x81", b"0", b"2", b".", b"h\0", b"h\1", b"q\0", b"q\1", b"I1\n", b"\x80\4", b"\x93", b"\x8c\1a", b"\x95\1\0\0\0\0\0\0\0",
]  # fmt: skip


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
                names = ["", "/", "DATA.PKL", "data/", "data/0", "../x", "constants.pkl", ".format_version", ".storage_alignment"]
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
    parts = [pickle.dumps(value, 2) for value in (serialization.MAGIC_NUMBER, serialization.PROTOCOL_VERSION, {"little_endian": True})]
    parts += [draw(program(storages, True)), pickle.dumps(draw(st.permutations(list(storages))), 2)]
    for key, (kind, count) in storages.items():
        parts += [struct.pack("<q", count), bytes(SIZES[kind] * count)]
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(parts) - 1))
        parts[at] = draw(st.sampled_from([b"", parts[0], parts[-1], struct.pack("<q", 2**62), pickle.dumps(2**70, 2)]))
    return {"model.pth": draw(damaged_bytes(b"".join(parts)))}


@st.composite
def index(draw) -> dict[str, bytes]:
    """Shards, their index, and at times the config beside them."""
    shapes = draw(st.sampled_from(PARTS))
    shards, weight_map = {}, {}
    for number in range(2):
        name, mine = f"model-{number}.safetensors", dict(list(shapes.items())[number::2])
        shards[name] = file_of(*header_of(mine, ["F32"]))
        weight_map |= dict.fromkeys(mine, name)
    for name in draw(st.lists(st.sampled_from(list(weight_map)), max_size=1)):
        names = ["", "..", "/etc/passwd", "../x.safetensors", "missing.safetensors", "model.safetensors.index.json", "\0", "a" * 300, "\ud800"]
        weight_map[name] = draw(st.sampled_from([*shards, *names]) | VALUES)
    value = {"metadata": {"total_size": 8}, "weight_map": weight_map}
    match draw(st.sampled_from(["good", "good", "value", "map", "more", "shard", "same"])):
        case "value":
            value = draw(VALUES)
        case "map":
            value["weight_map"] = draw(VALUES)
        case "more":
            weight_map[draw(st.sampled_from([*NAMES, "b" * 2000]))] = draw(st.sampled_from(list(shards)))
        case "shard":
            shards["model-0.safetensors"] = draw(safetensors())["model.safetensors"]
        case "same":
            shards["model-0.safetensors"] = shards["model-1.safetensors"]
    files = {"model.safetensors.index.json": draw(damaged_bytes(json.dumps(value).encode())), **shards}
    if draw(st.booleans()):
        config = {"num_heads": 1, "dim": 128, "num_layers": 1, "text_len": 8, "eps": 1e-6, "patch_size": [1, 2, 2]}
        for field in draw(st.lists(st.sampled_from([*config, "in_dim", "ffn_dim", "vace_layers", "num_attention_heads"]), max_size=2)):
            config[field] = draw(VALUES)
        files["config.json"] = draw(damaged_bytes(json.dumps(config).encode()))
    return files


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
        key = draw(st.sampled_from([b"general.name", b"general.alignment", b"tokenizer.ggml.tokens", b"comfy.gguf.orig_shape.a", b"k", b""]))
        kind = draw(st.sampled_from([*GGUF_NUMBERS, 8, 9, 9, 13]))
        entries.append((key, kind, draw(_gguf_value(kind))))
    tensors, data = [], b""
    for name, shape in draw(st.sampled_from(PARTS)).items():
        kind = draw(st.sampled_from([kind for kind, (block, _) in GGUF_TYPES.items() if shape and shape[-1] % block == 0] or [0]))
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


BUILDERS = {"gguf": gguf(), "safetensors": safetensors(), "archive": archive(), "stream": stream(), "index": index()}
