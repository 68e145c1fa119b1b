"""Frames to mp4: streamed while they are made, and complete before the file has its name."""

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InputError, VideoError, WanError, quoted
from ..validate import real_number
from .ffmpeg import feed, find_ffmpeg, options
from .metadata import metadata_file
from .part import FREE_SPACE, ClipKept, remove, rename, reserve
from .pixels import clip_to_uint8
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
# In fragments, each playable as soon as it is complete, which is when it leaves ffmpeg.
CONTAINER = options(
    {"movflags": "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags", "flush_packets": 1, "f": "mp4"}
)


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
    frames = clip_to_uint8(frames)
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
        VideoError: ffmpeg missing, failed, killed or hanging, or the disk is full. The incomplete file is removed.
            Where it is only the sound that has no room, or the name that cannot be had, the clip is kept: the message
            says where.
    """
    path = check_output(path)
    fps = real_number("fps", fps, 0, 1000, above=True)
    chunks = iter(chunks)
    first = next(chunks, None)
    if first is None:
        raise InputError("no frames to write")
    part = reserve(path)
    try:
        written = _encode(itertools.chain([first], chunks), first.shape[1:3], part, fps, metadata or {})
        if audio is not None:
            part = _with_sound(part, path, audio, written, fps)
        found = count_frames(part)
        if found != written:
            raise VideoError(f"{part} holds {found} of {written} frames", fix="Save again; the disk may be failing")
        rename(part, path)
    except ClipKept:
        raise
    except BaseException:
        remove(part)
        raise
    return written


def check_output(path: str | Path, raw_bytes: int = 0) -> Path:
    """Whether an mp4 of so many uncompressed bytes can go to `path`; to be asked before the work that makes it.

    Raises:
        InputError: no such folder, or a name that is not an mp4's.
        VideoError: no permission, hardly any space, or no ffmpeg.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise InputError(f"the output is {quoted(path)}", "the path of an mp4")
    path = Path(path).absolute()
    if path.suffix.lower() != ".mp4" or len(os.fsencode(path.name)) > LONGEST_NAME:
        raise InputError(
            f"the output is {path.name[:80]}", f"a name that ends in .mp4, of at most {LONGEST_NAME} bytes"
        )
    try:
        _check_folder(path, max(1 << 20, raw_bytes // COMPRESSION))
    except WanError:
        raise
    except OSError as error:
        raise VideoError(
            f"{path.parent} cannot be used ({error.strerror})", "a folder that can be written to"
        ) from error
    find_ffmpeg()
    return path


def _check_folder(path: Path, needed: int) -> None:
    if path.is_dir() or not path.parent.is_dir():
        wrong = path if path.is_dir() else path.parent
        raise InputError(
            f"{path} cannot be written: {wrong} {'is' if path.is_dir() else 'is not'} a folder", "an existing folder"
        )
    if not os.access(path.parent, os.W_OK):
        raise VideoError(f"{path.parent} cannot be written to", "write permission")
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise VideoError(f"{path.parent} has {free / 2**20:.0f} MiB free", f"about {needed >> 20} MiB", FREE_SPACE)


def _encode(
    chunks: Iterable[np.ndarray], size: tuple[int, int], part: Path, fps: float, metadata: Mapping[str, str]
) -> int:
    """Write all frames, of (height, width), and the metadata into `part`; how many frames there were."""
    height, width = size
    written = 0

    def raw() -> Iterator[memoryview]:
        nonlocal written
        for chunk in chunks:
            if chunk.dtype != np.uint8 or chunk.shape[1:] != (height, width, 3):
                raise InputError(f"a chunk {chunk.dtype} {chunk.shape}", f"uint8 (t, {height}, {width}, 3)")
            yield np.ascontiguousarray(chunk).data
            written += len(chunk)

    frames = options({"f": "rawvideo", "pix_fmt": "rgb24", "s": f"{width}x{height}", "r": f"{fps:g}", "i": "pipe:0"})
    with metadata_file(metadata, part.parent) as notes:
        inputs = (*frames, *options({"f": "ffmetadata", "i": notes}))
        chosen = options({"map": "0:v", "map_metadata": 1, "g": max(1, round(fps))})  # a fragment a second
        reason = feed(
            (*inputs, *chosen, *H264, *_low_delay(fps), *CONTAINER, f"file:{part}"), raw(), f"it writes {part}"
        )
    if reason:
        raise _failure(reason, part, written)
    return written


def _low_delay(fps: float) -> tuple[str, ...]:
    """x264's limits to how many frames it holds back, which a killed run loses: less than a second of them.

    A second of lookahead and a thread for each core hold 23 frames on 2 cores and 36 on 12.
    """
    ahead, threads = max(1, round(fps / 4)), max(1, round(fps * 3 / 8))
    return options(
        {
            "x264-params": f"rc-lookahead={min(40, ahead)}:sync-lookahead=0",
            "threads": min(threads, 3 * (os.cpu_count() or 1) // 2 or 1),  # x264's own number, where that is less
        }
    )


def _with_sound(part: Path, path: Path, audio: Sound, written: int, fps: float) -> Path:
    """A file in place of `part` with sound of exactly the clip's length; the frames are copied as they are.

    This is a second pass: while frames come one by one their number is unknown, and where ffmpeg itself would cut the
    sound depends on how fast they come.
    """
    waveform, rate = audio
    samples = round(written / fps * rate)
    sound = pad(waveform.float().cpu(), (0, max(0, samples - waveform.shape[1])))[:, :samples]
    raw = options({"f": "f32le", "ar": rate, "ac": len(sound), "i": "pipe:0"})
    chosen = ("-map", "0:v", "-map", "1:a", *options({"map_metadata": 0, "c:v": "copy", "c:a": "aac"}))
    try:
        whole = reserve(path)
    except VideoError as error:
        raise ClipKept(part, error.found, "without its sound") from error
    try:
        arguments = ("-i", f"file:{part}", *raw, *chosen, *CONTAINER, f"file:{whole}")
        reason = feed(arguments, [sound.T.contiguous().numpy().data], f"it adds sound to {part}")
        if _is_full(reason):
            raise ClipKept(part, f"{part.parent} has no space for the sound ({reason})", "without its sound")
        if reason:
            raise _failure(reason, part, written)
    except BaseException:
        remove(whole)
        raise
    remove(part)
    return whole


def _is_full(reason: str) -> bool:
    return any(words in reason for words in ("No space left", "File too large", "SIGXFSZ", "quota exceeded"))


def _failure(reason: str, part: Path, written: int) -> VideoError:
    full = _is_full(reason)
    return VideoError(
        f"ffmpeg stopped after {written} frames: {reason}",
        f"space in {part.parent}" if full else "",
        FREE_SPACE if full else "Save again; the latents are kept in the output object",
    )
