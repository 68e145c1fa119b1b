"""The ffmpeg program that imageio-ffmpeg brings: finding it, and running it without an endless wait."""

import functools
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, cast

import imageio_ffmpeg

from ..errors import VideoError

PATIENCE = 24  # seconds in which nothing moves, after which ffmpeg is taken to hang
PIPE_BYTES = 2**20  # room for frames that wait for ffmpeg while the next ones are made
PIECE = 2**16  # bytes whose passing counts as a move
LISTING = 2**20  # bytes, many times as many as ffmpeg's list of encoders takes
QUIET = ("-hide_banner", "-loglevel", "error")
_FIX = "Reinstall imageio-ffmpeg, or point the environment variable IMAGEIO_FFMPEG_EXE at a working ffmpeg"

# What `-progress` writes twice a second, beside the messages.
_REPORT = re.compile(rb"(?:frame=\s*(\d+)|fps=|stream_\w+=|bitrate=|total_size=|out_time|\w+_frames=|speed=|progress=)")
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows


def find_ffmpeg() -> str:
    """Path of a working ffmpeg that can write H.264; one that worked is not tried again.

    Raises:
        VideoError: none, or a broken one.
    """
    path = _program()
    _try_encoder(path, Path(path).stat().st_mtime_ns)
    return path


def _program() -> str:
    """The ffmpeg that imageio-ffmpeg would take; it runs each to choose, for as long as that takes."""
    named = os.environ.get("IMAGEIO_FFMPEG_EXE")
    brought = Path(imageio_ffmpeg.__file__).with_name("binaries").glob("ffmpeg*")
    of_conda = Path(sys.prefix, *(("Library", "bin") if sys.platform == "win32" else ("bin",)), "ffmpeg")
    candidates: tuple[str | Path, ...] = (named,) if named else (*sorted(brought), of_conda, "ffmpeg")
    for candidate in candidates:
        if path := shutil.which(candidate):
            return path
    raise VideoError(f"no ffmpeg can be run ({named or 'none is installed'})", "ffmpeg, to write mp4 files", _FIX)


@functools.cache
def _try_encoder(path: str, changed: int) -> None:
    """Raises VideoError unless the program at `path`, last changed at `changed`, runs and has libx264."""
    with Ffmpeg(("-hide_banner", "-encoders"), "it lists its encoders", gives=True) as run:
        encoders = run.read(LISTING)
        reason = run.finish()
    if reason or b"libx264" not in encoders:
        raise VideoError(f"{path} ended with {reason or 'exit code 0'} or lacks libx264", "ffmpeg with libx264", _FIX)


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


class Ffmpeg:
    """ffmpeg while it runs, as a `with` block; at its end no process is left, however it ends.

    Each call that waits for it goes on as long as something moves: bytes that it takes or gives, or the frames that it
    reports. After PATIENCE seconds without a move the call raises VideoError. Seconds in which the computer sleeps do
    not count.

    Args:
        task: what it does, such as "it encodes".
        takes: its standard input is written to. gives: its standard output is read.
    Attributes:
        frames: how many it has reported.
    """

    def __init__(self, arguments: Iterable[str], task: str, takes: bool = False, gives: bool = False):
        try:  # a session of its own: what it starts ends with it, and Ctrl-C reaches the caller alone
            self._process = subprocess.Popen(
                [_program(), "-progress", "pipe:2", *arguments],
                bufsize=0,
                stdin=subprocess.PIPE if takes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if gives else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                creationflags=_NO_WINDOW,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise VideoError(f"no ffmpeg can be run ({error})", "ffmpeg, to write mp4 files", _FIX) from error
        self.frames = 0
        self._task, self._moves = task, 0
        self._input = self._process.stdin
        self._output = io.BufferedReader(cast(io.RawIOBase, self._process.stdout), PIECE) if gives else None
        self._last_words: deque[bytes] = deque(maxlen=3)
        self._listener = self._worker = Thread(target=self._listen, daemon=True)
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            _enlarge(pipe)

    def __enter__(self) -> "Ffmpeg":
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._kill()
        with suppress(subprocess.TimeoutExpired):  # nothing can end a program that waits for a broken disk
            self._process.wait(timeout=2)
        self._listener.join(timeout=1)
        if self._listener.is_alive():  # a program that it has started holds the pipe
            self._kill()
        self._worker.join(timeout=1)
        for pipe in (self._input, self._output):
            if pipe is not None and not self._worker.is_alive():
                pipe.close()

    def write(self, data: bytes | memoryview) -> bool:
        """Hand over bytes, and wait until all of them are taken; whether ffmpeg still listens."""
        assert self._input is not None
        rest, pipe = memoryview(data), self._input
        if not rest.nbytes:
            return True
        rest = rest.cast("B")

        def push() -> None:
            nonlocal rest
            with suppress(OSError):  # it is gone, or has closed its end
                while rest:
                    rest = rest[pipe.write(rest[:PIECE]) :]
                    self._moves += 1

        self._wait(push)
        return not rest

    def read(self, size: int) -> bytearray:
        """The next `size` bytes of its output, fewer at the end."""
        assert self._output is not None
        data, got, output = bytearray(size), 0, self._output

        def pull() -> None:
            nonlocal got
            while got < size and (count := output.readinto1(memoryview(data)[got:])):
                got += count
                self._moves += 1

        self._wait(pull)
        del data[got:]
        return data

    def read_line(self) -> bytes:
        """The next line of its output, its first KiB at most; empty at the end."""
        assert self._output is not None
        line, output = b"", self._output

        def pull() -> None:
            nonlocal line
            line = output.readline(1024)

        self._wait(pull)
        return line

    def finish(self) -> str:
        """Close its standard input and wait for its end.

        Returns:
            "" when it ended well, else its last words, or how it ended.
        """
        if self._input is not None:
            self._input.close()
        self._wait(self._process.wait)
        self._listener.join(timeout=1)
        code = self._process.returncode
        if not code:
            return ""
        words = [line.decode("utf-8", "replace").strip() for line in self._last_words]
        if code < 0:
            words.append(f"killed by {signal.Signals(-code).name}")
        return " / ".join(words) or f"exit code {code}"

    def _wait(self, work: Callable[[], object]) -> None:
        """Do something that ffmpeg can hold up."""
        worker = self._worker = Thread(target=work, daemon=True)
        worker.start()
        idle, seen = 0, self._moves
        while worker.is_alive():
            worker.join(timeout=1)
            idle, seen = idle + 1 if seen == self._moves else 0, self._moves
            if idle >= PATIENCE and worker.is_alive():
                raise VideoError(f"ffmpeg hangs while {self._task}: nothing has moved for {PATIENCE} s", fix=_FIX)

    def _listen(self) -> None:
        """Take in what it reports and says, of which the end is kept."""
        assert self._process.stderr is not None
        unfinished = b""
        with self._process.stderr as log:
            while block := log.read(PIECE):
                *lines, unfinished = (unfinished + block).split(b"\n")
                unfinished = unfinished[-1024:]
                for line in lines:
                    self._hear(line)
        self._hear(unfinished)

    def _hear(self, line: bytes) -> None:
        report = _REPORT.match(line)
        if report is None and line.strip():
            self._last_words.append(line[-1024:])
        elif report and report[1] and int(report[1]) > self.frames:
            self.frames = int(report[1])
            self._moves += 1

    def _kill(self) -> None:
        if sys.platform == "win32":
            self._process.kill()
        else:
            with suppress(ProcessLookupError, PermissionError):  # nobody is left in the group
                os.killpg(self._process.pid, signal.SIGKILL)


def _enlarge(pipe: IO[bytes]) -> None:
    with suppress(ImportError, AttributeError, OSError):  # a system may not have this, or not allow it
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
