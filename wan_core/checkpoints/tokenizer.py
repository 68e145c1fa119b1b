"""The tokenizer that belongs to a text encoder, wherever its layout keeps it."""

import struct
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..memory import typed_oom
from ..text import LARGEST_PROTO, Tokenizer
from .formats import Weights, open_weights

_KEY = "tokenizer.ggml."
_PIECES = ("tokens", "scores", "token_type")
_TYPES = range(1, 7)  # of a piece: normal 1, unknown 2, control 3, user-defined 4, unused 5, byte 6
_LARGEST_SCORE = 1e30  # what float32 holds


@typed_oom()
def open_tokenizer(source: str | Path | Weights, max_length: int = 512) -> Tokenizer:
    """From a tokenizer's folder, or from a text encoder that embeds it: ComfyUI's .safetensors, or GGUF.

    Raises:
        CheckpointError: no tokenizer is there, or it is damaged.
    """
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        return Tokenizer.from_folder(source, max_length)
    name = source.source if isinstance(source, Weights) else source
    return Tokenizer.from_proto(embedded_tokenizer(source), max_length, f"the tokenizer in {name}")


def check_tokenizer(source: Path | Weights) -> None:
    """Whether `open_tokenizer` will find one there; of a file, only how it begins is read.

    Raises:
        CheckpointError: no tokenizer is there, or a file that is none.
    """
    if isinstance(source, Path):
        Tokenizer.file_in(source)
    elif _embedded(source) is None and not all(_KEY + name in source.arrays for name in _PIECES):
        raise _no_tokenizer(source)


def embedded_tokenizer(source: str | Path | Weights) -> bytes:
    """The serialised sentencepiece model in a text encoder's file.

    Raises:
        CheckpointError: the file holds none.
    """
    weights = source if isinstance(source, Weights) else open_weights(source)
    name = _embedded(weights)
    if name is None:
        return _from_arrays(weights)
    info = weights.info[name]
    if info.dtype != torch.uint8 or info.qtype or info.parameters > LARGEST_PROTO:
        raise _damaged(weights, f"{info.parameters:,} numbers of {info.dtype} under spiece_model", "bytes")
    return weights.tensor(name).numpy().tobytes()


def _embedded(weights: Weights) -> str | None:
    """The tensor that holds a sentencepiece model."""
    return next((name for name in weights if name.endswith("spiece_model")), None)


def _no_tokenizer(weights: Weights) -> CheckpointError:
    return CheckpointError(
        f"{weights.source} holds no tokenizer",
        "ComfyUI's umT5 file, with the tensor spiece_model, or a GGUF file with tokens, scores and token types",
        "Use umt5_xxl_fp16.safetensors from Comfy-Org, or an official folder",
    )


def _from_arrays(weights: Weights) -> bytes:
    """The sentencepiece model that llama.cpp's converter took apart, serialised again.

    Source: sentencepiece_model.proto; the tokenizer keys of docs/gguf.md.
    """
    tokens = weights.metadata_array(_KEY + "tokens", str)
    scores, types = weights.metadata_array(_KEY + "scores", float), weights.metadata_array(_KEY + "token_type", int)
    charsmap = weights.metadata_array(_KEY + "precompiled_charsmap", int)
    if not tokens or not len(tokens) == len(scores) == len(types):
        raise _no_tokenizer(weights)
    if not all(abs(score) < _LARGEST_SCORE for score in scores):
        raise _damaged(weights, "scores that are no finite numbers", "logarithms of probabilities")
    if not all(type_ in _TYPES for type_ in types):
        raise _damaged(weights, "tokens of unknown types", f"types from {min(_TYPES)} to {max(_TYPES)}")
    if not all(0 <= byte < 256 for byte in charsmap):
        raise _damaged(weights, "a table of characters that is not made of bytes", "numbers from 0 to 255")
    pieces = b"".join(
        _field(1, _field(1, token.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, type_))
        for token, score, type_ in zip(tokens, scores, types, strict=True)
    )
    flags = {3: "add_space_prefix", 4: "remove_extra_whitespaces"}
    normaliser = _field(2, bytes(charsmap))
    settings = {field: weights.metadata.get(_KEY + name) != "False" for field, name in flags.items()}
    normaliser += b"".join(_number(field, value) for field, value in settings.items())
    # A unigram model; unknown 2, end of sequence 1, no start of sequence, padding 0.
    unigram = _number(3, 1) + _number(40, 2) + _number(42, 1) + _number(43, 0)
    return pieces + _field(2, unigram) + _field(3, normaliser)


def _damaged(weights: Weights, found: str, needed: str) -> CheckpointError:
    return CheckpointError(f"{weights.source} has a damaged tokenizer: {found}", needed, "Download it again")


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
