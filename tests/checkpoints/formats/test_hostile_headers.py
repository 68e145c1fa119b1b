"""Safetensors files made to harm: each is refused for what is wrong with it, within the limits of `confined`."""

import json
import struct

import pytest

from wan_core.checkpoints.formats.limits import LARGEST_HEADER

PLENTY = LARGEST_HEADER - 1000  # bytes: nearly as long as a header may be
U8 = '{"dtype":"U8","shape":[],"data_offsets":[0,1]}'


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


def numbered(entry: str) -> bytes:
    """An object of as many entries as fit, each with a name of its own."""
    return header("{" + ",".join(entry % number for number in range(PLENTY // (len(entry) + 5))) + "}")


FILES = {
    "no object": (lambda: header("[1, 2]"), "no JSON object"),
    "two objects": (lambda: header("{}{}"), "Extra data"),
    "a byte order mark": (lambda: header("\ufeff{}"), "no JSON object"),
    "UTF-16": (lambda: header("{}".encode("utf-16-le")), "makes no sense"),
    "no UTF-8": (lambda: header(b'{"\xff": 1}'), "codec"),
    "half a character": (lambda: header('{"\\ud800":%s}' % U8, 1), "surrogates"),
    "one name twice": (lambda: header('{"a":%s,"a":%s}' % (U8, U8), 1), "same name twice"),
    "one field twice": (lambda: header('{"a":{"dtype":"F32",%s}' % U8[1:], 1), "same name twice"),
    "one field more": (lambda: tensor(stride=[1]), "alone"),
    "a bool as a size": (lambda: tensor(shape=[True, 2]), "impossible shape"),
    "a fraction as a size": (lambda: tensor(shape=[2.0]), "impossible shape"),
    "NaN as a size": (lambda: tensor(shape=[float("nan")]), "NaN"),
    "an infinite size": (lambda: header('{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,1]}}', 1), "1e999"),
    "a negative size": (lambda: tensor(shape=[-1, -2]), "impossible shape"),
    "a size beyond 64 bits": (lambda: tensor(shape=[2**64 - 1, 0]), "impossible shape"),
    "a number of a million digits": (lambda: header('{"a":%s}' % ("9" * 1_000_000)), "1,000,000 digits"),
    "nine dimensions": (lambda: tensor(shape=[1] * 8 + [2]), "impossible shape"),
    "a bool as an offset": (lambda: tensor(data_offsets=[False, 8]), "impossible offsets"),
    "three offsets": (lambda: tensor(data_offsets=[0, 4, 8]), "impossible offsets"),
    "a size beyond the file": (
        lambda: tensor(shape=[2**40], data_offsets=[0, 2**42]),
        "where its header describes 4,398,0",
    ),
    "a product beyond 64 bits": (lambda: tensor(shape=[2**32, 2**32, 4], data_offsets=[0, 0]), "values in 0 bytes"),
    "an overlap": (lambda: bytes_at(0, 4), "at byte 4 of the data where 8 is next"),
    "a hole": (lambda: bytes_at(0, 16), "at byte 16 of the data where 8 is next"),
    "the same bytes twice": (lambda: header('{"a":%s,"b":%s}' % (U8, U8), 1), "at byte 0 of the data where 1 is next"),
    "a long name": (lambda: header('{"%s":%s}' % ("a" * 2000, U8), 1), "2,000 characters"),
    "no name": (lambda: header('{"":%s}' % U8, 1), "0 characters"),
    "half a character in the metadata": (lambda: header('{"__metadata__":{"a":"\\ud800"}}'), "surrogates"),
    "metadata that is an empty text": (lambda: header('{"__metadata__":""}'), "metadata other than strings"),
    "metadata in metadata": (lambda: header('{"__metadata__":{"a":{"b":"c"}}}'), "metadata other than strings"),
    "deep lists": (lambda: header('{"a":' + "[" * PLENTY), "nested too deeply"),
    "deep objects": (lambda: header('{"a":' * (PLENTY // 5)), "nested too deeply"),
    "more than the limit": (lambda: header(b" " * (LARGEST_HEADER + 1)), "a header of 6,000,001 bytes"),
    "empty objects": (lambda: header('{"a":[%s]}' % many("{}")), "alone"),
    "small objects": (lambda: header('{"a":[%s]}' % many('{"a":0}')), "alone"),
    "empty lists": (lambda: header('{"a":[%s]}' % many("[]")), "alone"),
    "names alone": (lambda: numbered('"%d":0'), "tensors"),
    "wide text": (lambda: header('{"__metadata__":{"a":"%s"},"a":1}' % ("a" * (PLENTY - 100) + "😀")), "alone"),
    "many tensors": (lambda: numbered('"%d":{"dtype":"U8","shape":[],"data_offsets":[0,0]}'), "tensors"),
}


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused(name, reader, tmp_path):
    data, message = FILES[name]
    (tmp_path / "model.safetensors").write_bytes(data())
    assert message in reader.open(tmp_path / "model.safetensors")
