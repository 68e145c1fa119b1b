"""Strings in a video file, as the text format that ffmpeg reads and writes them in.

Source: ffmpeg's documentation, "Metadata". A line is KEY=VALUE; a backslash stands before `=`, `;`, `#`, itself and a
newline that belong to the text.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import VideoError
from .part import FREE_SPACE, remove

_ENTRY = re.compile(r"^([^=\\\n]*(?:\\.[^=\\\n]*)*)=([^\\\n]*(?:\\.[^\\\n]*)*)\n", re.DOTALL | re.MULTILINE)


def to_ffmetadata(metadata: Mapping[str, str]) -> str:
    return ";FFMETADATA1\n" + "".join(f"{_escape(key)}={_escape(value)}\n" for key, value in metadata.items())


@contextmanager
def metadata_file(metadata: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """A file that ffmpeg reads them from: a command line has room for 128 KiB a word.

    It lies in `folder`, that of the clip, where the one for temporary files is full or cannot be used.
    Raises:
        VideoError: neither can take it.
    """
    text = to_ffmetadata(metadata).encode("utf-8", "replace")
    try:
        stored = _store(text, None)
    except OSError:
        try:
            stored = _store(text, folder)
        except OSError as error:
            found = f"the clip's metadata cannot be stored in {folder} ({error.strerror})"
            raise VideoError(found, f"{len(text)} bytes of space", FREE_SPACE) from error
    try:
        yield stored
    finally:
        remove(stored)


def _store(text: bytes, folder: Path | None) -> Path:
    handle, name = tempfile.mkstemp(".txt", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
    except BaseException:
        remove(Path(name))
        raise
    return Path(name)


def from_ffmetadata(text: str) -> dict[str, str]:
    """The entries of a file; a key that comes twice has its last value."""
    return {_unescape(key): _unescape(value) for key, value in _ENTRY.findall(text.partition("\n")[2])}


def _escape(text: str) -> str:
    text = str(text).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    text += " " * text.endswith("\\")  # ffmpeg would take the next line for part of this one
    return re.sub(r"[=;#\\\n]", r"\\\g<0>", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
