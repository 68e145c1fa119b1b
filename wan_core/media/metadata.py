"""Strings in a video file, as the text format that ffmpeg reads and writes them in.

Source: ffmpeg's documentation, "Metadata". A line is KEY=VALUE; a backslash stands before `=`, `;`, `#`, itself and a
newline that belong to the text.
"""

import re
from collections.abc import Mapping

_ENTRY = re.compile(r"^([^=\\\n]*(?:\\.[^=\\\n]*)*)=([^\\\n]*(?:\\.[^\\\n]*)*)\n", re.DOTALL | re.MULTILINE)


def to_ffmetadata(metadata: Mapping[str, str]) -> str:
    return ";FFMETADATA1\n" + "".join(f"{_escape(key)}={_escape(value)}\n" for key, value in metadata.items())


def from_ffmetadata(text: str) -> dict[str, str]:
    """The entries of a file; a key that comes twice has its last value."""
    return {_unescape(key): _unescape(value) for key, value in _ENTRY.findall(text.partition("\n")[2])}


def _escape(text: str) -> str:
    text = str(text).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    text += " " * text.endswith("\\")  # ffmpeg would take the next line for part of this one
    return re.sub(r"[=;#\\\n]", r"\\\g<0>", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
