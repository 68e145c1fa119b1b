"""Where the commands print: a terminal, a file, a reader that goes away, a full disk, or nowhere."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO


class Printed:
    """A text stream that may stop working: a clip is not given up because nobody can see its progress bar.

    Attributes:
        failure: why something could not be written; None where all could, or the reader did not want more.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot print Chinese must not end the run
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., object], *words: str) -> None:
        try:
            call(*words)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EINVAL):  # EINVAL: a closed pipe, on Windows
                self.failure = OSError(error.errno, error.strerror, self._stream.name)
            nowhere = os.open(os.devnull, os.O_WRONLY)  # also for what is still in the buffer
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printing() -> Iterator[Printed]:
    """Until its end, what cannot be printed is lost and ends nothing. Gives standard output, flushed at the end."""
    _open_closed_streams()
    with Path(os.devnull).open("w") as nowhere:
        output, messages = (Printed(stream or nowhere) for stream in (sys.stdout, sys.stderr))
        with redirect_stdout(output), redirect_stderr(messages):
            try:
                yield output
            finally:
                output.flush()
                messages.flush()


def _open_closed_streams() -> None:
    """Let closed ones lead nowhere; else the next file that is opened, a clip say, is what others print into."""
    for number in range(3):
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
