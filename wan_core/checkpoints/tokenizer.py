"""The tokenizer that belongs to a text encoder, wherever its layout keeps it."""

import struct
from pathlib import Path

from ..errors import CheckpointError
from ..text import Tokenizer
from .formats.gguf import GGUF
from .formats.open import open_weights


def open_tokenizer(path: Path, max_length: int = 512) -> Tokenizer:
    """From a tokenizer's folder, or from a text encoder that embeds it: ComfyUI's .safetensors, or GGUF.

    Raises:
        CheckpointError: no tokenizer is there, or it is damaged.
    """
    if path.is_dir():
        return Tokenizer.from_folder(path, max_length)
    return Tokenizer.from_proto(embedded_tokenizer(path), max_length)


def embedded_tokenizer(path: str | Path) -> bytes:
    """The serialised sentencepiece model in a text encoder's file.

    Raises:
        CheckpointError: the file holds none.
    """
    path = Path(path)
    if path.suffix.lower() == ".gguf":
        return _from_arrays(path)
    weights = open_weights(path)
    name = next((name for name in weights if name.endswith("spiece_model")), None)
    if name is None:
        raise CheckpointError(
            f"{path} holds no tokenizer",
            "ComfyUI's umT5 file, which has the tensor spiece_model",
            "Use umt5_xxl_fp16.safetensors from Comfy-Org, or an official folder",
        )
    return weights.mapped(name).numpy().tobytes()


def _from_arrays(path: Path) -> bytes:
    """The sentencepiece model that llama.cpp's converter took apart, serialised again.

    Source: sentencepiece_model.proto; the tokenizer keys of docs/gguf.md.
    """
    file = GGUF(path)
    key = "tokenizer.ggml."
    tokens, scores, kinds = (file.array(key + name) for name in ("tokens", "scores", "token_type"))
    if not tokens or scores is None or kinds is None or not len(tokens) == len(scores) == len(kinds):
        raise CheckpointError(
            f"{file.path} holds no complete tokenizer",
            "a GGUF text encoder with its tokens, scores and token types",
            "Use umt5_xxl_fp16.safetensors from Comfy-Org",
        )
    pieces = b"".join(
        _field(1, _field(1, token.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
        for token, score, kind in zip(tokens, scores, kinds)
    )
    flags = {3: "add_space_prefix", 4: "remove_extra_whitespaces"}
    normaliser = _field(2, bytes(file.array(key + "precompiled_charsmap") or ()))
    normaliser += b"".join(_number(field, file.metadata.get(key + name) != "False") for field, name in flags.items())
    unigram = (
        _number(3, 1) + _number(40, 2) + _number(42, 1) + _number(43, 0)
    )  # unknown 2, end of sequence 1, padding 0
    return pieces + _field(2, unigram) + _field(3, normaliser)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(int(value))


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
