"""Tokenizers inside text encoders: whole, and with arrays of other types, values and lengths."""

import math
import re
import struct

import pytest
import torch

from tests.support.damage.ggufs import array, gguf_file, string, tokenizer_entries
from tests.support.small_parts import TEXT, shapes_of
from wan_core.checkpoints import load_text_encoder
from wan_core.checkpoints.formats import from_state_dict
from wan_core.checkpoints.tokenizer import embedded_tokenizer, open_tokenizer
from wan_core.errors import CheckpointError
from wan_core.text import LARGEST_PROTO, Tokenizer

STRING, FLOAT, INT, BYTE = 8, 6, 5, 0
MANY = 400_000
KEY = "tokenizer.ggml."
GOOD = {key.removeprefix(KEY): value for key, _, value in tokenizer_entries()}


def strings(count: int, text: bytes = b"") -> bytes:
    return struct.pack("<IQ", STRING, count) + string(text) * count


ARRAYS = {
    "tokens that are numbers": ({"tokens": array(INT, [1] * 9)}, "tokenizer.ggml.tokens.*a list of str"),
    "scores that are texts": ({"scores": array(STRING, ["a"] * 9)}, "tokenizer.ggml.scores.*a list of float"),
    "scores that are whole": ({"scores": array(INT, [1] * 9)}, "a list of float"),
    "scores that are true": ({"scores": array(7, [True] * 9)}, "a list of float"),
    "types that are texts": ({"token_type": array(STRING, ["1"] * 9)}, "a list of int"),
    "types that are fractions": ({"token_type": array(FLOAT, [1.0] * 9)}, "a list of int"),
    "types that are true": ({"token_type": array(7, [True] * 9)}, "a list of int"),
    "types that are negative": ({"token_type": array(INT, [-1] * 9)}, "unknown types.*from 1 to 6"),
    "types beyond 32 bits": ({"token_type": array(10, [2**64 - 1] * 9)}, "unknown types"),
    "scores that are no numbers": ({"scores": array(FLOAT, [math.nan] * 9)}, "no finite numbers"),
    "scores without an end": ({"scores": array(FLOAT, [-math.inf] * 9)}, "no finite numbers"),
    "scores beyond 32 bits": ({"scores": array(12, [1e300] * 9)}, "no finite numbers"),
    "fewer scores": ({"scores": array(FLOAT, [0.0] * 8)}, "holds no tokenizer"),
    "more types": ({"token_type": array(INT, [1] * 10)}, "holds no tokenizer"),
    "nothing at all": (dict.fromkeys(GOOD, array(INT, [])), "holds no tokenizer"),
    "tokens that are empty": ({"tokens": array(STRING, [""] * 9)}, "not a sentencepiece model"),
    "one token nine times": ({"tokens": array(STRING, ["a"] * 9)}, "not a sentencepiece model"),
    "a table of texts": ({"precompiled_charsmap": array(STRING, ["a"] * 9)}, "a list of int"),
    "a table of fractions": ({"precompiled_charsmap": array(FLOAT, [0.5] * 9)}, "a list of int"),
    "a table beyond bytes": ({"precompiled_charsmap": array(INT, [256] * 9)}, "not made of bytes"),
    "a table below bytes": ({"precompiled_charsmap": array(1, [-1] * 9)}, "not made of bytes"),
    "a table that is none": ({"precompiled_charsmap": array(BYTE, [255] * 400)}, "sentencepiece"),
    "more tokens than any vocabulary": (
        {"tokens": strings(MANY + 1)},
        "400,001 elements under 'tokenizer.ggml.tokens'",
    ),
    "more numbers than any vocabulary": (
        {"scores": struct.pack("<IQ", BYTE, MANY + 1) + bytes(MANY + 1)},
        "400,001 elements",
    ),
    "tokens of many bytes": ({"tokens": strings(20, b"a" * 900_000)}, "18,000,160 bytes of strings"),
    "a token of many bytes": ({"tokens": strings(9, b"a" * 1_500_000)}, "a string of 1,500,000 bytes"),
    "as many tokens as there may be": (
        {
            "tokens": strings(MANY, b"a" * 30),
            "scores": struct.pack("<IQ", FLOAT, MANY) + bytes(4 * MANY),
            "token_type": struct.pack("<IQ", BYTE, MANY) + b"\1" * MANY,
        },
        "not a sentencepiece model",
    ),
    "as many different tokens": (
        {
            "tokens": struct.pack("<IQ", STRING, MANY) + b"".join(string(b"%d" % n * 4) for n in range(MANY)),
            "scores": struct.pack("<IQ", FLOAT, MANY) + bytes(4 * MANY),
            "token_type": struct.pack("<IQ", BYTE, MANY) + b"\1\1\2" + b"\1" * (MANY - 3),
        },
        "",
    ),
}


def write(path, changes=()):
    entries = [(KEY + key, 9, value) for key, value in (GOOD | dict(changes)).items()]
    path.write_bytes(gguf_file([], entries, b""))
    return path


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name, reader, tmp_path):
    changes, message = ARRAYS[name]
    write(tmp_path / "model.gguf", changes)
    answer = reader.open(tmp_path / "model.gguf", "tokenizer")
    assert re.search(message, answer) if message else not answer


def test_a_whole_one(tmp_path):
    assert open_tokenizer(write(tmp_path / "model.gguf"))("a red the")[0].shape[1] > 1


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.bool])
def test_a_sentencepiece_model_is_bytes(dtype):
    with pytest.raises(CheckpointError, match="damaged tokenizer.*bytes"):
        embedded_tokenizer(from_state_dict({"spiece_model": torch.zeros(9, dtype=dtype)}))


def test_a_sentencepiece_model_larger_than_any():
    with pytest.raises(CheckpointError, match="damaged tokenizer"):
        embedded_tokenizer(from_state_dict({"spiece_model": torch.zeros(LARGEST_PROTO + 1, dtype=torch.uint8)}))
    with pytest.raises(CheckpointError, match="sentencepiece"):
        Tokenizer.from_proto(bytes(LARGEST_PROTO + 1))


@pytest.mark.parametrize("name, size", [("spiece.model", LARGEST_PROTO), ("tokenizer.json", 64 << 20)])
def test_files_larger_than_any(tmp_path, name, size):
    with (tmp_path / name).open("wb") as file:
        file.truncate(size + 1)
    with pytest.raises(CheckpointError, match=f"{name} has more than {size:,} bytes"):
        open_tokenizer(tmp_path)


def test_a_tokenizer_of_a_larger_vocabulary_than_the_encoder():
    encoder = load_text_encoder({name: torch.zeros(shape) for name, shape in shapes_of(TEXT).items()}, TEXT)
    encoder(torch.tensor([[TEXT.vocab - 1, 1]]), torch.ones(1, 2))
    with pytest.raises(CheckpointError, match=f"the id {TEXT.vocab}.*{TEXT.vocab} words"):
        encoder(torch.tensor([[TEXT.vocab, 1]]), torch.ones(1, 2))
