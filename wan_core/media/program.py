"""The ffmpeg program that imageio-ffmpeg brings, as a process that no caller waits for without end."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
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
OTHER_FFMPEG = "Reinstall imageio-ffmpeg, or point the environment variable IMAGEIO_FFMPEG_EXE at a working ffmpeg"
# What `-progress` writes twice a second, beside the messages.
_REPORT = re.compile(rb"(?:frame=\s*(\d+)|fps=|stream_\w+=|bitrate=|total_size=|out_time|\w+_frames=|speed=|progress=)")
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows


def program_path() -> str:
    """The ffmpeg that imageio-ffmpeg would take: named, brought, conda's, or on the PATH.

    Found here, because imageio-ffmpeg runs what it finds, and waits for that without end.
    """
    named = os.environ.get("IMAGEIO_FFMPEG_EXE")
    brought = Path(imageio_ffmpeg.__file__).with_name("binaries").glob("ffmpeg*")
    of_conda = Path(sys.prefix, "Library/bin" if sys.platform == "win32" else "bin", "ffmpeg")
    candidates: tuple[str | Path, ...] = (named,) if named else (*sorted(brought), of_conda, "ffmpeg")
    for candidate in candidates:
        if path := shutil.which(str(candidate)):
            return path
    raise VideoError(
        f"no ffmpeg can be run ({named or 'none is installed'})", "ffmpeg, to write mp4 files", OTHER_FFMPEG
    )


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
                [program_path(), "-progress", "pipe:2", *arguments],
                bufsize=0,
                stdin=subprocess.PIPE if takes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if gives else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                creationflags=_NO_WINDOW,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise VideoError(f"no ffmpeg can be run ({error})", "ffmpeg, to write mp4 files", OTHER_FFMPEG) from error
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
            self._listener.join(timeout=1)
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
            self._wait(self._drain)
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

    def _drain(self) -> None:
        """See it take what waits in the pipe: the last MiB may be many small frames."""
        assert self._input is not None
        before = 0
        while self._process.poll() is None and (left := _waiting(self._input)):
            self._moves += left != before
            before = left
            time.sleep(0.01)

    def _wait(self, work: Callable[[], object]) -> None:
        """Do something that ffmpeg can hold up."""
        worker = self._worker = Thread(target=work, daemon=True)
        worker.start()
        idle, seen = 0, self._moves
        while worker.is_alive():
            worker.join(timeout=1)
            idle, seen = idle + 1 if seen == self._moves else 0, self._moves
            if idle >= PATIENCE and worker.is_alive():
                raise VideoError(
                    f"ffmpeg hangs while {self._task}: nothing has moved for {PATIENCE} s", fix=OTHER_FFMPEG
                )

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


def _waiting(pipe: IO[bytes]) -> int:
    """Bytes in a pipe, where the system tells."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl
        import termios

        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
    return 0


def _enlarge(pipe: IO[bytes]) -> None:
    with suppress(ImportError, AttributeError, OSError):  # a system may not have this, or not allow it
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
