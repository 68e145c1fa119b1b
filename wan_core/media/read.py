"""Video files to frames, and the strings stored in them."""

import itertools
import re
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np

from ..errors import InputError, VideoError
from .ffmpeg import QUIET, options
from .metadata import from_ffmetadata
from .program import Ffmpeg

PICTURES_ONLY = ("-an", "-sn", "-dn")
# Each picture begins with its size: "P6", width and height, and the largest value, in a line each.
PPM = options({"fps_mode": "passthrough", "pix_fmt": "rgb24", "c:v": "ppm", "f": "image2pipe"})
_PPM_HEAD = re.compile(rb"P6\n(\d+) (\d+)\n255\n")


def video_info(path: str | Path) -> tuple[int, int, int]:
    """(frames, height, width) of a video file.

    Raises:
        InputError: missing. VideoError: not a video.
    """
    with closing(iter_video(path, 1)) as frames:
        height, width = next(frames).shape[:2]
    return count_frames(_existing(path)), height, width


def count_frames(path: Path) -> int:
    """Frames that ffmpeg finds in a file.

    Raises:
        VideoError: not a video.
    """
    arguments = (*QUIET, "-i", f"file:{path}", *PICTURES_ONLY, "-f", "null", "-")
    with Ffmpeg(arguments, f"it counts the frames of {path}") as run:
        reason = run.finish()
    if reason:
        raise VideoError(f"{path} cannot be read", fix=f"ffmpeg says: {reason}")
    return run.frames


def iter_video(path: str | Path, limit: int | None = None) -> Generator[np.ndarray, None, None]:
    """Frames (H, W, 3) uint8 of a video file one at a time, the first `limit` of them.

    Raises:
        InputError: missing. VideoError: not a video.
    """
    path = _existing(path)
    with Ffmpeg((*QUIET, "-i", f"file:{path}", *PICTURES_ONLY, *PPM, "pipe:1"), f"it reads {path}", gives=True) as run:
        head = b"".join(run.read_line() for _ in range(3))
        size = _PPM_HEAD.fullmatch(head)
        if size is None:
            raise VideoError(f"{path} is not a video that ffmpeg can read", fix="" if head else run.finish())
        width, height = int(size[1]), int(size[2])
        for number in itertools.islice(itertools.count(), limit):
            start = head if number else b""  # that of the first one has been read
            data = run.read(len(start) + 3 * height * width)
            if start and not data:
                return
            if len(data) < len(start) + 3 * height * width or not data.startswith(start):
                raise VideoError(f"{path} breaks off within a frame, or its frames change their size")
            yield np.frombuffer(data, np.uint8, offset=len(start)).reshape(height, width, 3)


def read_video(path: str | Path, limit: int | None = None) -> np.ndarray:
    """Frames of a video file, (T, H, W, 3) uint8, the first `limit` of them.

    Raises:
        InputError: missing. VideoError: not a video.
    """
    frames = list(iter_video(path, limit))
    if not frames:
        raise VideoError(f"{path} has no frames")
    return np.stack(frames)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings stored in a video file.

    Raises:
        InputError: missing. VideoError: not a video.
    """
    path = _existing(path)
    most = 4 * path.stat().st_size + 2**20  # what a file can hold, every character escaped, and what ffmpeg adds
    with Ffmpeg((*QUIET, "-i", f"file:{path}", "-f", "ffmetadata", "pipe:1"), f"it reads {path}", gives=True) as run:
        text = run.read(most)
        if len(text) == most or run.finish():
            raise VideoError(f"{path} is not a video that ffmpeg can read")
    return from_ffmetadata(text.decode("utf-8", "replace"))


def _existing(path: str | Path) -> Path:
    path = Path(path).absolute()
    if not path.is_file():
        raise InputError(f"{path} does not exist", "a video file")
    return path
