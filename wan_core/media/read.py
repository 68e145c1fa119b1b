"""Video files to frames, and the strings stored in them."""

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from ..errors import InputError, VideoError
from .metadata import from_ffmetadata


def video_info(path: str | Path) -> tuple[int, int, int]:
    """(frames, height, width) of a video file.

    Raises:
        InputError: missing. VideoError: not a video.
    """
    path = _existing(path)
    with _reading(path) as (found, _):
        width, height = found["size"]
    return count_frames(path), height, width


def count_frames(path: Path) -> int:
    """Frames that ffmpeg finds in a file.

    Raises:
        VideoError: not a video.
    """
    try:
        return imageio_ffmpeg.count_frames_and_secs(str(path))[0]
    except (RuntimeError, OSError) as error:
        raise VideoError(f"{path} cannot be read", fix=f"ffmpeg says: {str(error).strip().splitlines()[-1]}") from error


def iter_video(path: str | Path, limit: int | None = None) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video file one at a time, the first `limit` of them."""
    with _reading(_existing(path)) as (found, raw):
        width, height = found["size"]
        for frame in itertools.islice(raw, limit):
            yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)


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
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(_existing(path)), "-f", "ffmetadata", "-"]
    run = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if run.returncode:
        raise VideoError(f"{path} is not a video that ffmpeg can read")
    return from_ffmetadata(run.stdout.decode("utf-8", "replace"))


def _existing(path: str | Path) -> Path:
    path = Path(path).absolute()
    if not path.is_file():
        raise InputError(f"{path} does not exist", "a video file")
    return path


@contextmanager
def _reading(path: Path) -> Iterator[tuple[dict[str, Any], Iterator[bytes]]]:
    """(what ffmpeg says of the file, its raw frames)."""
    reader = imageio_ffmpeg.read_frames(str(path), output_params=["-fps_mode", "passthrough"])
    try:
        yield next(reader), reader
    except (OSError, RuntimeError, StopIteration, KeyError) as error:
        raise VideoError(f"{path} is not a video that ffmpeg can read") from error
    finally:
        reader.close()
