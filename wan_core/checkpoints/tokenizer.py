"""The tokenizer that belongs to a text encoder, wherever its layout keeps it."""

import struct
from pathlib import Path

from ..errors import CheckpointError
from ..memory import typed_oom
from ..text import Tokenizer
from .formats import Weights, open_weights


@typed_oom()
def open_tokenizer(source: str | Path | Weights, max_length: int = 512) -> Tokenizer:
    """From a tokenizer's folder, or from a text encoder that embeds it: ComfyUI's .safetensors, or GGUF.

    Raises:
        CheckpointError: no tokenizer is there, or it is damaged.
    """
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        return Tokenizer.from_folder(source, max_length)
    return Tokenizer.from_proto(embedded_tokenizer(source), max_length)


def embedded_tokenizer(source: str | Path | Weights) -> bytes:
    """The serialised sentencepiece model in a text encoder's file.

    Raises:
        CheckpointError: the file holds none.
    """
    weights = source if isinstance(source, Weights) else open_weights(source)
    name = next((name for name in weights if name.endswith("spiece_model")), None)
    if name is not None:
        return weights.tensor(name).numpy().tobytes()
    return _from_arrays(weights)


def _from_arrays(weights: Weights) -> bytes:
    """The sentencepiece model that llama.cpp's converter took apart, serialised again.

    Source: sentencepiece_model.proto; the tokenizer keys of docs/gguf.md.
    """
    key = "tokenizer.ggml."
    tokens, scores, types = (weights.metadata_array(key + name) for name in ("tokens", "scores", "token_type"))
    if not tokens or not scores or not types or not len(tokens) == len(scores) == len(types):
        raise CheckpointError(
            f"{weights.source} holds no tokenizer",
            "ComfyUI's umT5 file, with the tensor spiece_model, or a GGUF file with tokens, scores and token types",
            "Use umt5_xxl_fp16.safetensors from Comfy-Org, or an official folder",
        )
    pieces = b"".join(
        _field(1, _field(1, token.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, type_))
        for token, score, type_ in zip(tokens, scores, types, strict=True)
    )
    flags = {3: "add_space_prefix", 4: "remove_extra_whitespaces"}
    normaliser = _field(2, bytes(weights.metadata_array(key + "precompiled_charsmap") or ()))
    normaliser += b"".join(_number(field, weights.metadata.get(key + name) != "False") for field, name in flags.items())
    # A unigram model; unknown 2, end of sequence 1, no start of sequence, padding 0.
    unigram = _number(3, 1) + _number(40, 2) + _number(42, 1) + _number(43, 0)
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
