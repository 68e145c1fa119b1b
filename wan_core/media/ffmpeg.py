"""Asking ffmpeg for things: whether it works, and a file from what it is fed."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import VideoError
from .program import OTHER_FFMPEG, Ffmpeg, program_path

LISTING = 2**20  # bytes, many times as many as ffmpeg's list of encoders takes
QUIET = ("-hide_banner", "-loglevel", "error")


def find_ffmpeg() -> str:
    """Path of a working ffmpeg that can write H.264; one that worked is not tried again.

    Raises:
        VideoError: none, or a broken one.
    """
    path = program_path()
    _try_encoder(path, Path(path).stat().st_mtime_ns)
    return path


@functools.cache
def _try_encoder(path: str, changed: int) -> None:
    """Raises VideoError unless the program at `path`, last changed at `changed`, runs and has libx264."""
    with Ffmpeg(("-hide_banner", "-encoders"), "it lists its encoders", gives=True) as run:
        encoders = run.read(LISTING)
        reason = run.finish()
    if reason or b"libx264" not in encoders:
        raise VideoError(
            f"{path} ended with {reason or 'exit code 0'} or lacks libx264", "ffmpeg with libx264", OTHER_FFMPEG
        )


def options(values: Mapping[str, object]) -> tuple[str, ...]:
    """ffmpeg's spelling of options: {"crf": 10} → ("-crf", "10")."""
    return tuple(word for name, value in values.items() for word in (f"-{name}", str(value)))


def feed(arguments: Iterable[str], data: Iterable[bytes | memoryview], task: str = "it encodes") -> str:
    """Run ffmpeg with `data` as its standard input.

    Returns:
        "" when it ended well, else its last words, or how it ended.
    Raises:
        VideoError: it hangs.
    """
    with Ffmpeg((*QUIET, "-y", *arguments), task, takes=True) as run:
        for piece in data:
            if not run.write(piece):
                break  # ffmpeg is gone, or listens no more; its exit code says why
        return run.finish()
