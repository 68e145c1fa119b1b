"""Prompt cleaning and tokenisation, as the official code feeds umT5."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, CheckpointNotFound, WanError

EOS = 1  # umT5: pad 0, eos 1, no bos


def clean(prompt: str) -> str:
    """Repair encoding mistakes, unescape HTML (twice, for text that was escaped twice), collapse white space.

    Source: Wan2.2 wan/modules/tokenizers.py whitespace_clean(basic_clean(text)).

    Raises:
        WanError: ftfy is not installed.
    """
    try:
        import ftfy  # here, so that without it everything else still loads
    except ImportError as error:
        raise WanError(
            "the Python package ftfy is not installed",
            "ftfy, which repairs prompts before they are encoded",
            "Install it with pip install ftfy, for ComfyUI with ComfyUI's python",
        ) from error

    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


class Tokenizer:
    """Prompts to umT5 token ids.

    Args:
        encode: text → ids, without special tokens.
        max_length: longest sequence, the end-of-sequence token included; longer prompts are cut.
    """

    def __init__(self, encode: Callable[[str], list[int]], max_length: int = 512):
        self.encode, self.max_length = encode, max_length

    def __call__(self, prompt: str) -> tuple[Tensor, Tensor]:
        """(1, n) int64 ids ending with eos, and their mask of ones; nothing is padded."""
        ids = torch.tensor([[*self.encode(clean(prompt))[: self.max_length - 1], EOS]])
        return ids, torch.ones_like(ids)

    @classmethod
    def from_proto(cls, proto: bytes, max_length: int = 512) -> "Tokenizer":
        """From a serialised sentencepiece model, as ComfyUI's umT5 files embed it (`spiece_model`)."""
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor()
        try:
            model.LoadFromSerializedProto(proto)
        except RuntimeError as error:
            raise CheckpointError("a tokenizer that is not a sentencepiece model", "spiece.model of umT5") from error
        return cls(model.EncodeAsIds, max_length)

    @classmethod
    def from_folder(cls, folder: str | Path, max_length: int = 512) -> "Tokenizer":
        """From `tokenizer.json` (what the official code reads) or `spiece.model` in `folder`.

        Raises:
            CheckpointNotFound: neither is there.
        """
        folder = Path(folder)
        if (folder / "tokenizer.json").is_file():
            import tokenizers

            try:
                tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            except Exception as error:  # the library raises nothing narrower
                raise CheckpointError(f"{folder / 'tokenizer.json'} is damaged", fix="Download it again") from error
            tokenizer.no_padding()
            tokenizer.no_truncation()
            return cls(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, max_length)
        if (folder / "spiece.model").is_file():
            return cls.from_proto((folder / "spiece.model").read_bytes(), max_length)
        raise CheckpointNotFound(
            f"no tokenizer in {folder}",
            "tokenizer.json or spiece.model",
            "Copy the folder google/umt5-xxl of the release there",
        )
