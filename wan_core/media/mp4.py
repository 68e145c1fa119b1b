"""Frames to mp4: streamed while they are made, and complete before the file has its name."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InputError, VideoError
from ..validate import real_number
from .ffmpeg import feed, find_ffmpeg, options
from .metadata import to_ffmetadata
from .pixels import is_unit, unit_to_uint8
from .read import count_frames

LONGEST_NAME = 240  # bytes; file systems allow 255, and the unfinished file has a longer name
COMPRESSION = 10  # an mp4 takes at most this part of its raw frames

Sound = tuple[Tensor, int]  # waveform (channels, samples) in [-1, 1], samples a second

# 8-bit 4:2:0 needs even sizes, so odd ones are padded. BT.709 and video range are stored in the file, so that players
# show the colours that went in.
H264 = options(
    {
        "vf": "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
        "c:v": "libx264",
        "crf": 10,  # what the official imageio quality of 8 means for libx264
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
        "color_range": "tv",
    }
)
# In fragments, each playable as soon as it is written.
CONTAINER = options({"movflags": "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags", "f": "mp4"})


def export_to_video(frames, path: str | Path, fps: float = 16) -> str:
    """Write frames to an mp4 and return its path.

    Args:
        frames: (T, H, W, 3) array or tensor, float in [0, 1] or uint8; or a list of such frames or PIL images.
        path: where the mp4 goes; an existing file is replaced once the new one is complete.
        fps: frames per second.
    Raises:
        InputError: frames of another shape or with values that are not finite.
        VideoError: the file cannot be written.
    """
    frames = _as_uint8(frames)
    write_mp4((frames[i : i + 1] for i in range(len(frames))), path, fps)
    return str(path)


def write_mp4(
    chunks: Iterable[np.ndarray],
    path: str | Path,
    fps: float,
    metadata: Mapping[str, str] | None = None,
    audio: Sound | None = None,
) -> int:
    """Stream frames into a fragmented H.264 mp4 and return how many were written.

    The frames go to `<path>.part`, playable up to its last fragment at any moment; the file takes its final name
    when ffmpeg has ended well and every frame is found in it.

    Args:
        chunks: arrays (t, H, W, 3) uint8, all of one size; taken one at a time while ffmpeg encodes the ones before.
        metadata: strings to store in the file.
        audio: (waveform (channels, samples) in [-1, 1], samples a second); cut, or filled with silence, to the length
            of the frames.
    Raises:
        VideoError: ffmpeg missing, failed or killed, or the disk is full. The incomplete file is removed.
    """
    path = check_output(path)
    fps = real_number("fps", fps, 0, 1000, above=True)
    chunks = iter(chunks)
    first = next(chunks, None)
    if first is None:
        raise InputError("no frames to write")
    part = _reserve(path)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            written = _encode(
                itertools.chain([first], chunks), first.shape[1:3], part, fps, metadata or {}, Path(scratch)
            )
            if audio is not None:
                _add_sound(part, audio, written, fps, Path(scratch))
        found = count_frames(part)
        if found != written:
            raise VideoError(f"{part} holds {found} of {written} frames", fix="Save again; the disk may be failing")
        _flush(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return written


def check_output(path: str | Path, raw_bytes: int = 0) -> Path:
    """Whether an mp4 of so many uncompressed bytes can go to `path`; to be asked before the work that makes it.

    Raises:
        InputError: no such folder, or a name that is not an mp4's.
        VideoError: no permission, hardly any space, or no ffmpeg.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise InputError(f"the output is {path!r}", "the path of an mp4")
    path = Path(path).absolute()
    if path.suffix.lower() != ".mp4" or len(os.fsencode(path.name)) > LONGEST_NAME:
        raise InputError(
            f"the output is {path.name[:80]}", f"a name that ends in .mp4, of at most {LONGEST_NAME} bytes"
        )
    if path.is_dir() or not path.parent.is_dir():
        wrong = path if path.is_dir() else path.parent
        raise InputError(
            f"{path} cannot be written: {wrong} {'is' if path.is_dir() else 'is not'} a folder", "an existing folder"
        )
    if not os.access(path.parent, os.W_OK):
        raise VideoError(f"{path.parent} cannot be written to", "write permission")
    free = shutil.disk_usage(path.parent).free
    needed = max(1 << 20, raw_bytes // COMPRESSION)
    if free < needed:
        raise VideoError(
            f"{path.parent} has {free / 2**20:.0f} MiB free",
            f"about {needed >> 20} MiB",
            "Free some space",
        )
    find_ffmpeg()
    return path


def _encode(
    chunks: Iterable[np.ndarray],
    size: tuple[int, int],
    part: Path,
    fps: float,
    metadata: Mapping[str, str],
    scratch: Path,
) -> int:
    """Write all frames, of (height, width), and the metadata into `part`; how many frames there were."""
    height, width = size
    stored = scratch / "metadata.txt"  # a file, because a command line has room for 128 KiB a word
    stored.write_text(to_ffmetadata(metadata), "utf-8", "replace")
    written = 0

    def raw() -> Iterator[memoryview]:
        nonlocal written
        for chunk in chunks:
            if chunk.dtype != np.uint8 or chunk.shape[1:] != (height, width, 3):
                raise InputError(f"a chunk {chunk.dtype} {chunk.shape}", f"uint8 (t, {height}, {width}, 3)")
            yield np.ascontiguousarray(chunk).data
            written += len(chunk)

    frames = options({"f": "rawvideo", "pix_fmt": "rgb24", "s": f"{width}x{height}", "r": f"{fps:g}", "i": "pipe:0"})
    inputs = (*frames, *options({"f": "ffmetadata", "i": stored}))
    chosen = options({"map": "0:v", "map_metadata": 1, "g": max(1, round(fps))})  # a fragment a second
    reason = feed((*inputs, *chosen, *H264, *CONTAINER, f"file:{part}"), raw())
    if reason:
        raise _failure(reason, part, written)
    return written


def _add_sound(part: Path, audio: Sound, written: int, fps: float, scratch: Path) -> None:
    """Put sound of exactly the clip's length beside its frames, which are copied as they are.

    This is a second pass: while frames come one by one their number is unknown, and where ffmpeg itself would cut the
    sound depends on how fast they come.
    """
    waveform, rate = audio
    samples = round(written / fps * rate)
    sound = pad(waveform.float().cpu(), (0, max(0, samples - waveform.shape[1])))[:, :samples]
    silent = shutil.copy(part, scratch / "silent.mp4")
    raw = options({"f": "f32le", "ar": rate, "ac": len(sound), "i": "pipe:0"})
    chosen = ("-map", "0:v", "-map", "1:a", *options({"map_metadata": 0, "c:v": "copy", "c:a": "aac"}))
    arguments = ("-i", f"file:{silent}", *raw, *chosen, *CONTAINER, f"file:{part}")
    reason = feed(arguments, [sound.T.contiguous().numpy().data])
    if reason:
        raise _failure(reason, part, written)


def _failure(reason: str, part: Path, written: int) -> VideoError:
    full = any(words in reason for words in ("No space left", "File too large", "SIGXFSZ"))
    return VideoError(
        f"ffmpeg stopped after {written} frames: {reason}",
        f"space in {part.parent}" if full else "",
        "Free some space, then save again" if full else "Save again; the latents are kept in the output object",
    )


def _reserve(path: Path) -> Path:
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


def _flush(part: Path) -> None:
    """Write the file's buffers to the disk, before it is renamed."""
    with part.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise VideoError(f"{part} cannot be flushed to disk ({error.strerror})", fix="Free some space") from error


def _as_uint8(frames) -> np.ndarray:
    """Frames in any form → (T, H, W, 3) uint8."""
    if not isinstance(frames, (Tensor, np.ndarray)):
        frames = [_as_array(frame) for frame in frames] if isinstance(frames, Iterable) else []
        if len({frame.shape for frame in frames}) != 1:
            raise InputError("no frames, or frames of different sizes", "frames of one size (H, W, 3)")
        frames = np.stack(frames)
    frames = _as_array(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise InputError(
            f"frames of shape {frames.shape}",
            "one clip (T, H, W, 3) with at least one frame",
            "Pass out.frames[0], not out.frames",
        )
    if frames.dtype == np.uint8:
        return frames
    if frames.dtype.kind != "f" or not is_unit(frames):
        raise InputError(
            f"frames of {frames.dtype} with values from {frames.min()} to {frames.max()}", "uint8, or floats in [0, 1]"
        )
    return np.stack([unit_to_uint8(frame.astype(np.float32)) for frame in frames])


def _as_array(frames) -> np.ndarray:
    if isinstance(frames, Tensor):
        frames = frames.detach().cpu()
        return (frames.float() if frames.is_floating_point() else frames).numpy()
    return np.asarray(frames)
