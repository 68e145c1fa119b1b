"""Safetensors files, alone and as shards with their index."""

import copy
import itertools
import json
import math
import struct

from hypothesis import strategies as st

from tests.support.damage.values import NAMES, PARTS, VALUES, WHOLE, altered, damaged_bytes, damaged_json

METADATA = [
    *[None] * 8,
    {},
    {"title": "high noise"},
    {"x": 3},
    "x",
    {"config": "x" * 10_000},
    {"config": '{"model_type": "animate2"}'},
    {"_quantization_metadata": '{"layers": {"blocks.0.ffn.0": {"format": "nvfp4"}}}'},
    {"_quantization_metadata": '{"layers": {"' + "a" * 10_000 + '": {"format": ["' + "b" * 10_000 + '"]}}}'},
    {"_quantization_metadata": '{"layers": [["a", "b"]]}'},
    {"_quantization_metadata": '{"format_version": "1.0"}'},
    {"_quantization_metadata": "[" * 10_000},
    {"ss_base_model_version": "wan2.1 i2v" * 1000},
]
DTYPES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1, "BOOL": 1, "F64": 8}


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
def safetensors(draw, parts=(*PARTS, *WHOLE)) -> dict[str, bytes]:
    shapes = draw(altered(list(parts)))
    entries, size = header_of(shapes, draw(st.lists(st.sampled_from(list(DTYPES)), min_size=1, max_size=3)))
    metadata = copy.deepcopy(draw(st.sampled_from(METADATA)))
    if metadata is not None:
        entries.insert(0, ["__metadata__", metadata])
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        entry = draw(st.sampled_from(entries))
        fields = entry[1] if isinstance(entry[1], dict) else {}
        match draw(
            st.sampled_from(["value", "element", "element", "offset", "drop", "extra", "twice", "name", "replace"])
        ):
            case "value" if fields:
                fields[draw(st.sampled_from(list(fields)))] = draw(VALUES)
            case "element":
                numbers = fields.get(draw(st.sampled_from(["shape", "data_offsets"])))
                if isinstance(numbers, list) and numbers:
                    numbers[draw(st.integers(0, len(numbers) - 1))] = draw(VALUES)
            case "offset" if isinstance(fields.get("data_offsets"), list):
                by = draw(st.sampled_from([-1, 1, 4, -4, 2**63]))
                fields["data_offsets"] = [
                    offset + by if type(offset) is int else offset for offset in fields["data_offsets"]
                ]
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


@st.composite
def index(draw) -> dict[str, bytes]:
    """Shards, their index, and at times the config beside them."""
    shapes = draw(altered([*PARTS, *WHOLE]))
    shards, weight_map = {}, {}
    for number in range(2):
        name, mine = f"model-{number}.safetensors", dict(list(shapes.items())[number::2])
        shards[name] = file_of(*header_of(mine, ["F32"]))
        weight_map |= dict.fromkeys(mine, name)
    for name in draw(st.lists(st.sampled_from(list(weight_map)), max_size=1)):
        names = [
            "",
            "..",
            "/etc/passwd",
            "../x.safetensors",
            "missing.safetensors",
            "model.safetensors.index.json",
            "\0",
            "a" * 300,
            "\ud800",
        ]
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
        more = ["in_dim", "ffn_dim", "vace_layers", "num_attention_heads", "attention_head_dim"]
        for field in draw(st.lists(st.sampled_from([*config, *more]), max_size=2)):
            config[field] = draw(VALUES)
        files["config.json"] = draw(damaged_bytes(draw(damaged_json(config))))
    return files
