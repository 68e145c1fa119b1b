"""The ffmpeg program that imageio-ffmpeg brings: finding it and running it."""

import functools
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import imageio_ffmpeg

from ..errors import VideoError

PIPE_BYTES = 2**20  # room for frames that wait for ffmpeg while the next ones are made
QUIET = ("-hide_banner", "-loglevel", "error")
_FIX = "Reinstall imageio-ffmpeg, or point the environment variable IMAGEIO_FFMPEG_EXE at a working ffmpeg"


def find_ffmpeg() -> str:
    """Path of a working ffmpeg that can write H.264; one that worked is not tried again.

    Raises:
        VideoError: none, or a broken one.
    """
    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
        _try_encoder(path, Path(path).stat().st_mtime_ns)
    except VideoError:
        raise
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise VideoError(f"no ffmpeg can be run ({error})", "ffmpeg, to write mp4 files", _FIX) from error
    return path


@functools.cache
def _try_encoder(path: str, changed: int) -> None:
    """Raises VideoError unless the program at `path`, last changed at `changed`, runs and has libx264."""
    run = subprocess.run([path, "-hide_banner", "-encoders"], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    if run.returncode or b"libx264" not in run.stdout:
        raise VideoError(f"{path} ended with exit code {run.returncode} or lacks libx264", "ffmpeg with libx264", _FIX)


def options(values: Mapping[str, object]) -> tuple[str, ...]:
    """ffmpeg's spelling of options: {"crf": 10} → ("-crf", "10")."""
    return tuple(word for name, value in values.items() for word in (f"-{name}", str(value)))


def feed(arguments: Iterable[str], data: Iterable[bytes | memoryview]) -> str:
    """Run ffmpeg with `data` as its standard input.

    Returns:
        "" when it ended well, else its last words, or how it ended.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *QUIET, "-y", *arguments]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        assert process.stdin is not None
        _enlarge(process.stdin)
        try:
            for piece in data:
                process.stdin.write(piece)
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg is gone; its exit code says why
        except BaseException:
            process.kill()
            process.wait()
            raise
        return _reason(process.returncode, errors) if process.wait() else ""


def _enlarge(pipe: IO[bytes]) -> None:
    with suppress(ImportError, AttributeError, OSError):  # a system may not have this, or not allow it
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _reason(code: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    words = errors.read().decode("utf-8", "replace").strip().splitlines()[-3:]
    if code < 0:
        words.append(f"killed by {signal.Signals(-code).name}")
    return " / ".join(words) or f"exit code {code}"
