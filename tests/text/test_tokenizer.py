import sys

import pytest
import torch

from wan_core.errors import CheckpointError, CheckpointNotFound, WanError
from wan_core.testing import train_tokenizer
from wan_core.text import Tokenizer, clean


@pytest.mark.parametrize(
    "raw, cleaned",
    [
        ("  a  cat\n\twalks ", "a cat walks"),
        ("cats &amp;amp; dogs", "cats & dogs"),
        ("&lt;b&gt;", "<b>"),
        ("schÃ¶n", "schön"),
        ("a\u00a0cat", "a cat"),
        ("一只猫，在雪地里", "一只猫,在雪地里"),  # ftfy makes full-width punctuation narrow
        ("", ""),
        ("(a cat:1.3) [dog]", "(a cat:1.3) [dog]"),
    ],
)
def test_cleaning(raw, cleaned):
    assert clean(raw) == cleaned


def test_without_ftfy_cleaning_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(WanError, match="ftfy is not installed.*pip install ftfy"):
        clean("a cat")


@pytest.fixture(scope="module")
def proto():
    return train_tokenizer(384)


@pytest.mark.parametrize("prompt", ["a red circle moves", "一只猫在雪地里行走", "cat 猫 emoji 🎬"])
def test_ids_end_with_eos_and_nothing_is_padded(proto, prompt):
    ids, mask = Tokenizer.from_proto(proto)(prompt)
    assert ids.dtype == torch.int64 and ids.shape == mask.shape
    assert ids[0, -1] == 1 and mask.all() and 0 not in ids and 1 not in ids[0, :-1]


def test_empty_prompt_is_eos_alone(proto):
    assert Tokenizer.from_proto(proto)("")[0].tolist() == [[1]]


def test_long_prompts_are_cut_with_their_eos(proto):
    tokenizer = Tokenizer.from_proto(proto, max_length=16)
    ids, _ = tokenizer("a red circle moves to the right " * 30)
    assert ids.shape == (1, 16) and ids[0, -1] == 1
    full, _ = Tokenizer.from_proto(proto)("a red circle moves to the right " * 3)
    assert torch.equal(ids[0, :15], full[0, :15])


def test_the_json_form_gives_the_same_ids(proto, tmp_path):
    """The official code reads tokenizer.json; ComfyUI files embed the sentencepiece model that it was made from."""
    from transformers import T5TokenizerFast

    (tmp_path / "spiece.model").write_bytes(proto)
    direct = Tokenizer.from_folder(tmp_path)
    T5TokenizerFast.from_pretrained(tmp_path, extra_ids=0).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    converted = Tokenizer.from_folder(tmp_path)
    for prompt in ("a red circle moves to the right", "一只猫在雪地里行走，电影光线", "A Cat, 2 dogs!", ""):
        assert torch.equal(converted(prompt)[0], direct(prompt)[0]), prompt


def test_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(CheckpointNotFound, match="spiece.model"):
        Tokenizer.from_folder(tmp_path)


def test_damaged_tokenizer():
    with pytest.raises(CheckpointError, match="sentencepiece"):
        Tokenizer.from_proto(b"not a model")
