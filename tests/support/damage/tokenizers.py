"""Tokenizers: spiece.model and tokenizer.json."""

import json
from functools import cache

import tokenizers
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import models, normalizers, pre_tokenizers

from tests.support.damage.values import damaged_bytes, damaged_json
from wan_core.testing import train_tokenizer


@cache
def small_proto() -> bytes:
    """A whole sentencepiece model, without the table of characters that makes it large."""
    model = sentencepiece_model_pb2.ModelProto.FromString(_proto())
    model.normalizer_spec.precompiled_charsmap = b""
    return model.SerializeToString()


@cache
def small_json() -> dict:
    """The same as tokenizer.json."""
    model = sentencepiece_model_pb2.ModelProto.FromString(_proto())
    tokenizer = tokenizers.Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in model.pieces], 2, False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    return json.loads(tokenizer.to_str())


@cache
def _proto() -> bytes:
    return train_tokenizer(384)


@st.composite
def spiece(draw) -> dict[str, bytes]:
    model = sentencepiece_model_pb2.ModelProto.FromString(_proto() if draw(st.booleans()) else small_proto())
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        if not model.pieces:
            break
        piece = model.pieces[draw(st.integers(0, len(model.pieces) - 1))]
        match draw(st.sampled_from(["text", "score", "type", "model", "number", "drop", "twice", "charsmap"])):
            case "text":
                piece.piece = draw(st.sampled_from(["", "a", "\0", "a" * 100_000, "▁"]))
            case "score":
                piece.score = draw(st.sampled_from([float("nan"), float("inf"), -1e38, 1e38]))
            case "type":
                piece.type = draw(st.integers(1, 6))
            case "model":
                model.trainer_spec.model_type = draw(st.integers(1, 4))
            case "number":
                field = draw(st.sampled_from(["unk_id", "bos_id", "eos_id", "pad_id", "vocab_size"]))
                setattr(model.trainer_spec, field, draw(st.sampled_from([-1, 0, 5, 2**31 - 1, -(2**31)])))
            case "drop":
                del model.pieces[: draw(st.sampled_from([1, 3, len(model.pieces)]))]
            case "twice":
                model.pieces.extend([piece] * draw(st.sampled_from([1, 1000])))
            case "charsmap":
                table = model.normalizer_spec.precompiled_charsmap
                model.normalizer_spec.precompiled_charsmap = draw(damaged_bytes(table))
    return {"spiece.model": draw(damaged_bytes(model.SerializeToString()))}


@st.composite
def tokenizer_json(draw) -> dict[str, bytes]:
    return {"tokenizer.json": draw(damaged_bytes(draw(damaged_json(small_json()))))}
