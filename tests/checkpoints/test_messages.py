"""Files whose every text is long: whatever is wrong with them, the message quotes a part of it, on one line."""

import io
import json
import struct
import zipfile

import pytest
import torch

from tests.support.damage.folders import models
from tests.support.damage.ggufs import gguf_file, string, tensor_entry, tokenizer_entries
from tests.support.damage.headers import file_of, header_of
from tests.support.damage.pickles import _text as pickled
from tests.support.layouts import llama_cpp_name
from tests.support.small_parts import DIT, TEXT, lora_shapes, shapes_of
from wan_core.errors import LONGEST_EXCERPT

MARK = "Ж"  # in no message of ours
LONG = MARK * 10_000
NAME = MARK * 500  # as long as the name of a tensor may be, in bytes
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def safetensors(shapes=(), metadata=None, dtype="F32", **more) -> bytes:
    entries, size = header_of({name: list(shape) for name, shape in dict(shapes).items()}, [dtype])
    entries += [["__metadata__", metadata]] * (metadata is not None) + [[name, entry] for name, entry in more.items()]
    return file_of(entries, size)


def gguf(
    key: str = "k", value: str = "v", name: str = "a", dims=(1,), kind: int = 0, architecture: str = "wan"
) -> bytes:
    entries = [
        (name, 8, string(text.encode())) for name, text in (("general.architecture", architecture), (key, value))
    ]
    return gguf_file([tensor_entry(name, list(dims), kind, 0)], entries, bytes(32))


def pth(state) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def archive(pickle: bytes, record: str = "data/0", method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as records:
        records.writestr("m/data.pkl", pickle)
        records.writestr(f"m/{record}", bytes(400), method)
    return file.getvalue()


dit, lora = shapes_of(DIT), lora_shapes("peft")
FILES = {
    "a name": ("safetensors", safetensors({NAME: (1,)})),
    "a name that is too long": ("safetensors", safetensors({LONG: (1,)})),
    "a dtype": ("safetensors", safetensors(a=F32 | {"dtype": LONG})),
    "a dtype of a long name": ("safetensors", safetensors(**{NAME: F32 | {"dtype": "U16", "data_offsets": [0, 2]}})),
    "a field": ("safetensors", safetensors(a=F32 | {LONG: 1})),
    "a value": ("safetensors", safetensors(a=LONG)),
    "metadata": ("safetensors", safetensors(dit, {"config": LONG, "title": LONG, LONG: LONG})),
    "metadata of another type": ("safetensors", safetensors(dit, {LONG: {LONG: LONG}})),
    "formats": (
        "safetensors",
        safetensors(dit, {"_quantization_metadata": json.dumps({"layers": {LONG: {"format": LONG}}})}),
    ),
    "formats in a list": (
        "safetensors",
        safetensors(dit, {"_quantization_metadata": json.dumps({"layers": {LONG: {"format": [LONG]}}})}),
    ),
    "a tensor more": ("safetensors", safetensors(dit | {NAME: (1,)})),
    "many tensors more": ("safetensors", safetensors(dit | {f"{n}{NAME}": (1,) for n in range(9)})),
    "a layer with a long name": ("safetensors", safetensors(dit | {f"blocks.{NAME}.modulation": (1,)})),
    "a LoRA": ("safetensors", safetensors({f"{NAME}.lora_A.weight": (1, 1), f"{NAME}.lora_B.weight": (1, 1)})),
    "a LoRA and more": ("safetensors", safetensors(lora | {f"{n}{NAME}": (1,) for n in range(9)})),
    "whole numbers": ("safetensors", safetensors(dit | {f"{NAME}.comfy_quant": (10,)}, dtype="U8")),
    "a web page": ("safetensors", b"<html>" + LONG.encode()),
    "a text": ("safetensors", b"x" * 10_000 + LONG.encode()),
    "an architecture": ("gguf", gguf(architecture=LONG)),
    "a key": ("gguf", gguf(NAME)),
    "a key that is too long": ("gguf", gguf(LONG)),
    "a key twice": ("gguf", gguf_file([], [(NAME, 4, bytes(4))] * 2, b"")),
    "a key of no type": ("gguf", gguf_file([], [(NAME, 99, bytes(4))], b"")),
    "an array of no type": ("gguf", gguf_file([], [(NAME, 9, struct.pack("<IQ", 99, 1))], b"")),
    "an array without an end": ("gguf", gguf_file([], [(NAME, 9, struct.pack("<IQ", 8, 2**60))], b"")),
    "an alignment": ("gguf", gguf("general.alignment", LONG)),
    "a tensor": ("gguf", gguf(name=NAME)),
    "a tensor with a long name": ("gguf", gguf(name=LONG)),
    "a tensor of no type": ("gguf", gguf(name=NAME, kind=99)),
    "a tensor of a type that is not read": ("gguf", gguf(name=NAME, kind=23)),
    "a tensor of half a block": ("gguf", gguf(name=NAME, kind=2)),
    "a tensor beyond the file": ("gguf", gguf(name=NAME, dims=(2**40,))),
    "a tensor of nine dimensions": ("gguf", gguf(name=NAME, dims=(1,) * 9)),
    "pieces": (
        "gguf",
        gguf_file(
            [
                tensor_entry(llama_cpp_name(name), list(shape[::-1]), 0, 0)
                for name, shape in list(shapes_of(TEXT).items())[:1]
            ],
            [
                tokenizer_entries()[1],
                ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 9) + string(LONG.encode()) * 9),
            ],
            bytes(4 * 512 * 8),
        ),
    ),
    "scores that are texts": (
        "gguf",
        gguf_file([], [("tokenizer.ggml.scores", 9, struct.pack("<IQ", 8, 9) + string(LONG.encode()) * 9)], b""),
    ),
    "a parameter": ("pth", pth({NAME: torch.ones(1)})),
    "a parameter with a long name": ("pth", pth({LONG: torch.ones(1)})),
    "something that is no tensor": ("pth", pth({"a": torch.ones(1), LONG: LONG})),
    "a global": ("pth", archive(b"\x80\2c" + LONG.encode() + b"\n" + LONG.encode() + b"\n.")),
    "an instruction": ("pth", archive(b"\x80\2I" + LONG.encode() + b"\n.")),
    "a storage": (
        "pth",
        archive(
            b"\x80\2(" + pickled("storage") + b"ctorch\nFloatStorage\n" + pickled(LONG) + pickled("cpu") + b"K\1tQ."
        ),
    ),
    "a record": ("pth", archive(b"\x80\2}.", MARK * 20_000, zipfile.ZIP_DEFLATED)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("doors", ["weights", "lora"])
def test_a_file(name, doors, reader, tmp_path):
    suffix, content = FILES[name]
    (tmp_path / f"model.{suffix}").write_bytes(content)
    for message in reader.messages(tmp_path / f"model.{suffix}", doors):
        assert message.count(MARK) <= LONGEST_EXCERPT, message


LAYOUT = {"official": 0, "diffusers": 1, "comfyui": 2}
INDEX = "high_noise_model/diffusion_pytorch_model.safetensors.index.json"
JSONS = {
    "a number of the config": ("official", "high_noise_model/config.json", {"num_heads": LONG, "dim": LONG}),
    "all of the config": ("official", "high_noise_model/config.json", {"num_heads": {LONG: LONG}, LONG: [LONG]}),
    "a shard": ("official", INDEX, {"weight_map": {"a": LONG}}),
    "a shard of a short name": ("official", INDEX, {"weight_map": {"a": MARK * 100}}),
    "many shards": ("official", INDEX, {"weight_map": {f"{n}": f"{n}{MARK * 100}" for n in range(9)}}),
    "half characters": ("official", INDEX, {"weight_map": {"\ud800": "\ud800\x1b[2J\n" * 10}}),
    "a tensor of a shard": (
        "official",
        INDEX,
        {"weight_map": {LONG: "diffusion_pytorch_model-00001-of-00002.safetensors"}},
    ),
    "a class": ("diffusers", "model_index.json", {"transformer_2": LONG, "boundary_ratio": LONG}),
    "a boundary": ("diffusers", "model_index.json", {"boundary_ratio": [LONG] * 100, LONG: LONG}),
    "a width": ("diffusers", "transformer/config.json", {"num_attention_heads": LONG, "attention_head_dim": LONG}),
    "a tokenizer": ("diffusers", "tokenizer/tokenizer.json", {LONG: LONG, "model": {"type": LONG}}),
}


@pytest.mark.parametrize("name", JSONS)
def test_a_folder(name, reader, tmp_path):
    layout, damaged, value = JSONS[name]
    for file, content in models()[LAYOUT[layout]].items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(json.dumps(value).encode() if file == damaged else content)
    messages = reader.messages(tmp_path, "model")
    assert messages[-1]
    for message in messages:
        assert message.count(MARK) <= LONGEST_EXCERPT, message
