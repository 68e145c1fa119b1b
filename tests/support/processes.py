"""What a test has left behind in the table of processes."""

import os
import time
from contextlib import suppress
from pathlib import Path


def left_behind(mark: Path, seconds: float = 5) -> list[str]:
    """Processes that have `mark` in their environment, and children of this one that nobody has waited for."""
    deadline = time.monotonic() + seconds
    while (found := _found(os.fsencode(mark))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _found(mark: bytes) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            orphaned = state == "Z" and int(parent) == os.getpid()
            marked = int(process.name) != os.getpid() and mark in (process / "environ").read_bytes()
            if orphaned or marked:
                found.append(f"{process.name} {(process / 'cmdline').read_bytes()!r} {state}")
    return found
