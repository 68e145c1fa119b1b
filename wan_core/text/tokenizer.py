"""Prompt cleaning and tokenisation, as the official code feeds umT5."""

import contextlib
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, CheckpointNotFound, WanError, quoted

EOS = 1  # umT5: pad 0, eos 1, no bos
LARGEST_PROTO = 16 << 20  # bytes of spiece.model; umT5's has 4.5 MB
_LARGEST = {".model": LARGEST_PROTO, ".json": 64 << 20}  # and its tokenizer.json 17 MB
# How the two files begin: with a first piece and its text, and with a brace; a web page or a Git LFS pointer does not.
_BEGINS = {".model": re.compile(rb"\n.\n", re.DOTALL), ".json": re.compile(rb"\s*\{")}


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
        ids = torch.tensor([[*self.encode(clean(prompt))[: self.max_length - 1], EOS]], device="cpu")
        return ids, torch.ones_like(ids)

    @classmethod
    def from_proto(cls, proto: bytes, max_length: int = 512, source: str = "a tokenizer") -> "Tokenizer":
        """From a serialised sentencepiece model, as ComfyUI's umT5 files embed it (`spiece_model`).

        Args:
            source: its file, for messages.
        """
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor()
        with _refused(f"{source} is not a sentencepiece model", "spiece.model of umT5"):
            if len(proto) > LARGEST_PROTO:
                raise ValueError("too large")
            model.LoadFromSerializedProto(proto)

        def encode(text: str) -> list[int]:
            with _refused("a sentencepiece model that cannot read this prompt", "spiece.model of umT5"):
                return model.EncodeAsIds(text)

        return cls(encode, max_length)

    @classmethod
    def from_folder(cls, folder: str | Path, max_length: int = 512) -> "Tokenizer":
        """From `tokenizer.json` (what the official code reads) or `spiece.model` in `folder`.

        Raises:
            CheckpointNotFound: neither is there.
        """
        file = cls.file_in(folder)
        if file.suffix == ".model":
            return cls.from_proto(_read(file), max_length, str(file))
        return cls(_json_encoder(file), max_length)

    @staticmethod
    def file_in(folder: str | Path) -> Path:
        """The file that `from_folder` reads; only how it begins is looked at.

        Raises:
            CheckpointNotFound: none is there.
            CheckpointError: it may not be read, is larger than any, or begins as no tokenizer does.
        """
        files = [Path(folder) / name for name in ("tokenizer.json", "spiece.model")]
        try:
            file = next((file for file in files if file.is_file()), None)
        except OSError as error:
            raise CheckpointError(
                f"{folder} cannot be read ({error.strerror})", "a folder that you may open"
            ) from error
        if file is None:
            raise CheckpointNotFound(
                f"no tokenizer in {folder}",
                "tokenizer.json or spiece.model",
                "Copy the folder google/umt5-xxl of the release there",
            )
        _check_size(file)
        if not _BEGINS[file.suffix].match(start := _read(file, 200)):
            raise CheckpointError(
                f"{file} is no tokenizer: it begins with {quoted(start, 60)}",
                f"{file.name} of umT5",
                "Download it again",
            )
        return file


def _json_encoder(path: Path) -> Callable[[str], list[int]]:
    import tokenizers

    raw = _read(path)
    with _refused(f"{path} is damaged", "tokenizer.json of umT5"):
        tokenizer = tokenizers.Tokenizer.from_buffer(raw)
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(text: str) -> list[int]:
        with _refused(f"{path} cannot read this prompt", "tokenizer.json of umT5"):
            return tokenizer.encode(text, add_special_tokens=False).ids

    return encode


def _check_size(path: Path) -> None:
    most = _LARGEST[path.suffix]
    if path.stat().st_size > most:
        raise CheckpointError(f"{path} has more than {most:,} bytes", f"{path.name} of umT5")


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})", "a file that you may read") from error


@contextlib.contextmanager
def _refused(found: str, needed: str) -> Iterator[None]:
    """What these libraries raise of a damaged file, which is nothing narrower, as ours."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise CheckpointError(found, needed, "Download it again") from error
