"""The file that a clip is written to before it has its name."""

import os
from contextlib import suppress
from pathlib import Path

from ..errors import VideoError

FREE_SPACE = "Free some space, then save again"


class ClipKept(VideoError):
    """A clip that has all its frames, but cannot have its sound or its name; the message says where it is."""

    def __init__(self, part: Path, found: str, lacking: str = ""):
        kept = " ".join(filter(None, ("The clip is kept", lacking, f"as {part}")))
        super().__init__(found, fix=f"{kept}: rename it to end in .mp4")


def reserve(path: Path) -> Path:
    """A `.part` name that no other writer has."""
    number = 0
    while True:
        part = path.with_name(f"{path.name}{f'.{number}' if number else ''}.part")
        try:
            part.touch(exist_ok=False)
            return part
        except FileExistsError:
            number += 1
        except OSError as error:
            raise VideoError(f"{part} cannot be created ({error.strerror})") from error


def rename(part: Path, path: Path) -> None:
    """Give a file its final name once it is on the disk, not only in the system's memory.

    Raises:
        ClipKept: the disk or the system refuses.
    """
    try:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        found = f"{path} cannot be written or replaced ({error.strerror}); a player may have it open"
        raise ClipKept(part, found) from error


def remove(part: Path) -> None:
    with suppress(OSError):  # there is an error to tell of already
        part.unlink()
