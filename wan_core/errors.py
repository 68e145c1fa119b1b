"""Typed errors. Each says what was found, what was needed, and what to do next, on one line."""

import reprlib
import unicodedata
from collections.abc import Sequence

LONGEST_EXCERPT = 200  # characters of a file's content in one message
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories that a terminal obeys or cannot print
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = LONGEST_EXCERPT


def excerpt(text: object, longest: int = LONGEST_EXCERPT) -> str:
    """Names, and messages of other libraries that quote a file: the start of it, on one line, without control codes.

    A message that quotes several gives each its share of `longest`.
    """
    start = one_line(str(text)[: longest + 1])
    return start if len(start) <= longest else start[: longest - 1] + "…"


def quoted(value: object, longest: int = LONGEST_EXCERPT) -> str:
    """A value that a file or a caller states, as Python writes it; never longer than `longest`."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "a number of thousands of digits"
    return excerpt(text, longest)


def some(names: Sequence[str], longest: int = LONGEST_EXCERPT) -> str:
    """The first three of a list of names."""
    first = [excerpt(name, longest // 3 - 3) for name in names[:3]]
    return ", ".join(first + ["…"] * (len(names) > 3))


def one_line(text: str) -> str:
    """The text with its lines joined, and what cannot be seen as an escape."""
    text = " ".join(line.strip() for line in text.splitlines())
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _HIDDEN else character
        for character in text
    )


class WanError(Exception):
    """Base of every error that this library raises on purpose.

    Args:
        found: what was met, with the value or the file named.
        needed: what would have been right.
        fix: the next thing to do.
    """

    def __init__(self, found: str, needed: str = "", fix: str = ""):
        found, needed, fix = map(one_line, (found, needed, fix))
        self.found, self.needed, self.fix = found, needed, fix
        parts = [found.rstrip(".") + "."]
        if needed:
            parts.append(f"Needed: {needed.rstrip('.')}.")
        if fix:
            parts.append(fix.rstrip(".") + ".")
        super().__init__(" ".join(parts))


class InputError(WanError, ValueError):
    """An argument that the model cannot work with; raised before anything is allocated."""


class CheckpointError(WanError, ValueError):
    """A model file or folder that is damaged, incomplete, or not what the slot needs."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """A model file or folder that is not there."""


class NumericalError(WanError, ArithmeticError):
    """The model returned NaN or infinity."""


class OutOfMemory(WanError, MemoryError):
    """The device ran out of memory; this error holds no tensor of the run that failed."""


class VideoError(WanError, OSError):
    """A video or image file that could not be written or read."""

    # OSError would print its errno form; the sentence is what people need.
    __str__ = Exception.__str__


class WriteError(WanError, OSError):
    """A weight file, or a checkpoint of a training run, that could not be written."""

    __str__ = Exception.__str__
