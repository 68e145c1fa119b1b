"""Safetensors files made to harm: each is refused for what is wrong with it, within the limits of `confined`."""

import json
import math
import struct

import pytest

from tests.support.damage.ggufs import gguf_file, tensor_entry
from tests.support.damage.headers import file_of, header_of
from tests.support.small_parts import DIT, TEXT, VACE, shapes_of
from wan_core.checkpoints.formats.limits import LARGEST_HEADER, MOST_TENSORS

PLENTY = LARGEST_HEADER - 1000  # bytes: nearly as long as a header may be
U8 = '{"dtype":"U8","shape":[],"data_offsets":[0,1]}'
SMALL = '{"a":0}'


def header(text: bytes | str, size: int = 0) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(size)


def tensor(**changes) -> bytes:
    return header(json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}), 8)


def bytes_at(*places: int) -> bytes:
    """Tensors of eight bytes at these offsets."""
    entries = {str(at): {"dtype": "U8", "shape": [8], "data_offsets": [at, at + 8]} for at in places}
    return header(json.dumps(entries), max(places) + 8)


def many(entry: str) -> str:
    return ",".join([entry] * (PLENTY // (len(entry) + 1)))


def numbered(value: str) -> bytes:
    """An object of as many entries of this value as fit, each with a name of its own."""
    return header("{" + ",".join(f'"{number}":{value}' for number in range(PLENTY // (len(value) + 10))) + "}")


LIBRARY = "Error while deserializing header"  # refused by the safetensors library
FILES = {
    "no object": (lambda: header("[1, 2]"), LIBRARY),
    "two objects": (lambda: header("{}{}"), LIBRARY),
    "a byte order mark": (lambda: header("\ufeff{}"), LIBRARY),
    "UTF-16": (lambda: header("{}".encode("utf-16-le")), LIBRARY),
    "no UTF-8": (lambda: header(b'{"\xff": 1}'), LIBRARY),
    "half a character": (lambda: header(f'{{"\\ud800":{U8}}}', 1), LIBRARY),
    "one name twice": (lambda: header(f'{{"a":{U8},"a":{U8}}}', 1), "same name twice"),
    "one field twice": (lambda: header(f'{{"a":{{"dtype":"F32",{U8[1:]}}}', 1), LIBRARY),
    "one field more": (lambda: tensor(stride=[1]), "more than dtype"),
    "a deep field more": (lambda: header(f'{{"a":{U8[:-1]},"x":{"[" * 100 + "]" * 100}}}}}', 1), "more than dtype"),
    "a dtype that no weight has": (lambda: tensor(dtype="U16", shape=[4]), "dtype U16"),
    "an unknown dtype": (lambda: tensor(dtype="F33"), LIBRARY),
    "a bool as a size": (lambda: tensor(shape=[True, 2]), LIBRARY),
    "a fraction as a size": (lambda: tensor(shape=[2.0]), LIBRARY),
    "NaN as a size": (lambda: tensor(shape=[float("nan")]), LIBRARY),
    "an infinite size": (lambda: header('{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,1]}}', 1), LIBRARY),
    "a negative size": (lambda: tensor(shape=[-1, -2]), LIBRARY),
    "a size beyond 64 bits": (lambda: tensor(shape=[2**64 - 1, 0]), LIBRARY),
    "a number of a million digits": (lambda: header(f'{{"a":{"9" * 1_000_000}}}'), LIBRARY),
    "nine dimensions": (lambda: tensor(shape=[1] * 8 + [2]), "impossible shape"),
    "a bool as an offset": (lambda: tensor(data_offsets=[False, 8]), LIBRARY),
    "three offsets": (lambda: tensor(data_offsets=[0, 4, 8]), LIBRARY),
    "a size beyond the file": (lambda: tensor(shape=[2**40], data_offsets=[0, 2**42]), LIBRARY),
    "a product beyond 64 bits": (lambda: tensor(shape=[2**32, 2**32, 4], data_offsets=[0, 0]), LIBRARY),
    "an overlap": (lambda: bytes_at(0, 4), LIBRARY),
    "a hole": (lambda: bytes_at(0, 16), LIBRARY),
    "the same bytes twice": (lambda: header(f'{{"a":{U8},"b":{U8}}}', 1), LIBRARY),
    "a long name": (lambda: header(f'{{"{"a" * 2000}":{U8}}}', 1), "2,000 characters"),
    "no name": (lambda: header(f'{{"":{U8}}}', 1), "0 characters"),
    "half a character in the metadata": (lambda: header('{"__metadata__":{"a":"\\ud800"}}'), LIBRARY),
    "metadata that is an empty text": (lambda: header('{"__metadata__":""}'), LIBRARY),
    "metadata in metadata": (lambda: header('{"__metadata__":{"a":{"b":"c"}}}'), LIBRARY),
    "metadata twice": (lambda: header('{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}'), LIBRARY),
    "one name twice in the metadata": (lambda: header('{"__metadata__":{"a":"b","a":"c"}}'), "same name twice"),
    "deep lists": (lambda: header('{"a":' + "[" * PLENTY), LIBRARY),
    "deep objects": (lambda: header('{"a":' * (PLENTY // 5)), LIBRARY),
    "more than the limit": (lambda: header(b" " * (LARGEST_HEADER + 1)), "a header of 6,000,001 bytes"),
    "empty objects": (lambda: header(f'{{"a":[{many("{}")}]}}'), LIBRARY),
    "small objects": (lambda: header(f'{{"a":[{many(SMALL)}]}}'), LIBRARY),
    "empty lists": (lambda: header(f'{{"a":[{many("[]")}]}}'), LIBRARY),
    "small objects in a field more": (lambda: header(f'{{"a":{U8[:-1]},"x":[{many(SMALL)}]}}}}', 1), "more than dtype"),
    "names alone": (lambda: numbered("0"), LIBRARY),
    "wide text": (lambda: header(f'{{"__metadata__":{{"a":"{"a" * (PLENTY - 100)}😀"}},"a":1}}'), LIBRARY),
    "many tensors": (lambda: numbered('{"dtype":"U8","shape":[],"data_offsets":[0,0]}'), LIBRARY),
    "many empty tensors": (lambda: numbered('{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'), "tensors"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_it_is_refused(name, reader, tmp_path):
    data, message = FILES[name]
    (tmp_path / "model.safetensors").write_bytes(data())
    assert message in reader.open(tmp_path / "model.safetensors")


def layers(config, count: int, suffix: str, whole: bool) -> bytes:
    """A part with this many blocks more, empty ones: of one tensor each, or of all that a block has."""
    part = {name: list(shape) for name, shape in shapes_of(config).items()}
    block = [name.removeprefix("blocks.0.") for name in part if name.startswith("blocks.0.")]
    names = block if whole else block[:1]
    more = [f"blocks.{n}.{name}" for n in range(2, 2 + count) for name in names]
    if suffix == "gguf":  # has no empty tensors
        entries, data = [], b""
        for name, shape in (part | {name: [1] for name in more}).items():
            entries.append(tensor_entry(name, shape[::-1], 24, len(data)))
            data += bytes(-(-math.prod(shape) // 32) * 32)
        return gguf_file(entries, [], data)
    return file_of(*header_of(part | {name: [1, 6, 0] for name in more}, ["F32"]))


@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
@pytest.mark.parametrize("config", [DIT, VACE, TEXT], ids=["dit", "vace", "text"])
@pytest.mark.parametrize("count, whole", [(10_000, False), (250, False), (200, True), (1500, True)])
def test_numbered_layers_are_counted_before_they_are_built(suffix, config, count, whole, reader, tmp_path):
    """A module of 10,000 blocks takes minutes to build; of as many as a header can name, most of them."""
    whole_tensors = count * (len(shapes_of(config)) // 2 if whole else 1)
    if whole_tensors > MOST_TENSORS or (suffix == "safetensors" and whole_tensors * 85 > PLENTY):
        pytest.skip("more than a header holds")
    (tmp_path / f"model.{suffix}").write_bytes(layers(config, count, suffix, whole))
    messages = reader.messages(tmp_path / f"model.{suffix}")
    refused = next(message for message in messages[1:4] if "right place" not in message)
    assert f"layers = {count + 2}" in refused if count > 254 else "lacks" in refused or "another shape" in refused
