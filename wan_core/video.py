"""Frames to mp4 and back, through the ffmpeg that imageio-ffmpeg brings."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError, NumericalError, VideoError
from .validate import real_number

_WORKING: set[tuple[str, int]] = set()  # ffmpeg programs that have been tried, by path and change time
CRF = 10  # what the official imageio quality of 8 means for libx264
PIPE = 2**20  # bytes on their way to ffmpeg
CONTAINER = ("-movflags", "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags", "-f", "mp4")


def to_uint8(video: Tensor) -> np.ndarray:
    """A decoded chunk (3, T, H, W) in [-1, 1] → (T, H, W, 3) uint8, truncated as officially (0 becomes 127)."""
    return unit_to_uint8(((video.float().clamp(-1, 1) + 1) / 2).permute(1, 2, 3, 0).cpu().numpy())


def unit_to_uint8(frames: np.ndarray) -> np.ndarray:
    """Values in [0, 1] → uint8, truncated.

    Raises:
        NumericalError: NaN or infinity, which would be black or white in the file.
    """
    check_finite(frames)
    return (frames.clip(0, 1) * 255).astype(np.uint8)


def check_finite(frames: np.ndarray) -> None:
    """Raises NumericalError where decoded frames hold NaN or infinity."""
    if not np.isfinite(frames).all():
        raise NumericalError(
            "the VAE returned values that are not finite",
            "finite latents and weights",
            "Decode in float32, and check the VAE file",
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
    frames = _as_array(frames)
    write_mp4((frames[i : i + 1] for i in range(len(frames))), path, fps)
    return str(path)


def _as_array(frames) -> np.ndarray:
    """Frames in any form → (T, H, W, 3) uint8."""

    def array(frame) -> np.ndarray:
        if isinstance(frame, Tensor):
            frame = frame.detach().cpu()
            return (frame.float() if frame.is_floating_point() else frame).numpy()
        return np.asarray(frame)

    if not isinstance(frames, (Tensor, np.ndarray)):
        frames = [array(frame) for frame in frames] if isinstance(frames, Iterable) else [np.empty(0)]
        if len({frame.shape for frame in frames}) != 1:
            raise InputError("no frames, or frames of different sizes", "frames of one size (H, W, 3)")
    frames = np.stack(frames) if isinstance(frames, list) else array(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise InputError(
            f"frames of shape {frames.shape}",
            "one clip (T, H, W, 3) with at least one frame",
            "Pass out.frames[0], not out.frames",
        )
    if frames.dtype == np.uint8:
        return frames
    if frames.dtype.kind != "f" or not np.isfinite(frames).all() or not -1e-3 <= frames.min() <= frames.max() <= 1.001:
        raise InputError(
            f"frames of {frames.dtype} with values from {frames.min()} to {frames.max()}", "uint8, or floats in [0, 1]"
        )
    return np.stack([unit_to_uint8(frame.astype(np.float32)) for frame in frames])


def find_ffmpeg() -> str:
    """Path of a working ffmpeg that can write H.264; one that worked is not tried again.

    Raises:
        VideoError: none, or a broken one.
    """
    fix = "Reinstall imageio-ffmpeg, or point the environment variable IMAGEIO_FFMPEG_EXE at a working ffmpeg"
    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
        stamp = os.stat(path).st_mtime_ns
        if (path, stamp) in _WORKING:
            return path
        run = subprocess.run(
            [path, "-hide_banner", "-encoders"], capture_output=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise VideoError(f"no ffmpeg can be run ({error})", "ffmpeg, to write mp4 files", fix) from error
    if run.returncode or b"libx264" not in run.stdout:
        raise VideoError(f"{path} ended with exit code {run.returncode} or lacks libx264", "ffmpeg with libx264", fix)
    _WORKING.add((path, stamp))
    return path


def check_output(path: str | Path, raw_bytes: int = 0) -> Path:
    """Whether an mp4 of so many uncompressed bytes can go to `path`; to be asked before the work that makes it.

    Raises:
        InputError: no such folder, or a name that is not an mp4's.
        VideoError: no permission, hardly any space, or no ffmpeg.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise InputError(f"the output is {path!r}", "the path of an mp4")
    path = Path(path).absolute()
    if path.suffix.lower() != ".mp4" or len(os.fsencode(path.name)) > 240:
        raise InputError(f"the output is {path.name[:80]}", "a name that ends in .mp4, of at most 240 bytes")
    if path.is_dir() or not path.parent.is_dir():
        wrong = path if path.is_dir() else path.parent
        raise InputError(
            f"{path} cannot be written: {wrong} {'is' if path.is_dir() else 'is not'} a folder", "an existing folder"
        )
    if not os.access(path.parent, os.W_OK):
        raise VideoError(f"{path.parent} cannot be written to", "write permission")
    free = shutil.disk_usage(path.parent).free
    if free < max(1 << 20, raw_bytes // 10):
        raise VideoError(
            f"{path.parent} has {free / 2**20:.0f} MiB free",
            f"about {max(1, raw_bytes // 10 >> 20)} MiB",
            "Free some space",
        )
    find_ffmpeg()
    return path


def write_mp4(
    chunks: Iterable[np.ndarray],
    path: str | Path,
    fps: float,
    metadata: Mapping[str, str] | None = None,
    audio: tuple[Tensor, int] | None = None,
) -> int:
    """Stream frames into a fragmented H.264 mp4 and return how many were written.

    The frames go to `<path>.part`, playable up to its last fragment at any moment; the file takes its final name
    when ffmpeg has ended well and every frame is found in it.

    Args:
        chunks: arrays (t, H, W, 3) uint8, all of one size; taken one at a time while ffmpeg encodes the ones before.
        metadata: strings to store in the file.
        audio: (waveform (channels, samples) in [-1, 1], samples a second); cut, or filled with silence, to the length of the frames.
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
            written = _encode(itertools.chain([first], chunks), part, fps, metadata or {}, Path(scratch))
            if audio is not None:
                _add_sound(part, *audio, written, fps, Path(scratch))
        found = _count_frames(part)
        if found != written:
            raise VideoError(f"{part} holds {found} of {written} frames", fix="Save again; the disk may be failing")
        _flush(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return written


def _reserve(path: Path) -> Path:
    """A `.part` name that no other writer has."""
    for number in itertools.count():
        part = path.with_name(f"{path.name}{f'.{number}' if number else ''}.part")
        try:
            part.touch(exist_ok=False)
            return part
        except FileExistsError:
            continue
        except OSError as error:
            raise VideoError(f"{part} cannot be created ({error.strerror})") from error


def _encode(chunks: Iterator[np.ndarray], part: Path, fps: float, metadata: Mapping[str, str], scratch: Path) -> int:
    first = next(chunks)
    _, height, width, _ = first.shape
    notes = scratch / "metadata.txt"
    notes.write_text(
        ";FFMETADATA1\n" + "".join(f"{_escape(k)}={_escape(v)}\n" for k, v in metadata.items()), "utf-8", "replace"
    )

    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-r",
        f"{fps:g}",
        "-i",
        "pipe:0",
        "-f",
        "ffmetadata",
        "-i",
        str(notes),
        "-map",
        "0:v",
        "-map_metadata",
        "1",
        "-vf",
        "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
        "-c:v",
        "libx264",
        "-crf",
        str(CRF),
        "-g",
        str(max(1, round(fps))),
        "-colorspace",
        "bt709",
        "-color_primaries",
        "bt709",
        "-color_trc",
        "bt709",
        "-color_range",
        "tv",
        *CONTAINER,
        f"file:{part}",
    ]

    with (scratch / "errors.txt").open("w+b") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        _enlarge(process.stdin)
        written = 0
        try:
            for chunk in itertools.chain([first], chunks):
                if chunk.dtype != np.uint8 or chunk.shape[1:] != first.shape[1:]:
                    raise InputError(f"a chunk {chunk.dtype} {chunk.shape}", f"uint8 (t, {height}, {width}, 3)")
                process.stdin.write(np.ascontiguousarray(chunk).data)
                written += len(chunk)
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg is gone; its exit code says why
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait():
            raise _failure(process.returncode, errors, part, written)
    return written


def _enlarge(pipe: IO[bytes]) -> None:
    """Room for frames that wait for ffmpeg while the next ones are made."""
    with suppress(ImportError, AttributeError, OSError):  # a system may not have this, or not allow it
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)


def _add_sound(part: Path, waveform: Tensor, rate: int, written: int, fps: float, scratch: Path) -> None:
    """Put sound of exactly the clip's length beside its frames, which are copied as they are.

    While frames come one by one nobody knows their number, and ffmpeg's own cutting depends on how fast they come.
    """
    samples = round(written / fps * rate)
    sound = F.pad(waveform.float().cpu(), (0, max(0, samples - waveform.shape[1])))[:, :samples]
    (scratch / "audio.raw").write_bytes(sound.T.contiguous().numpy().tobytes())
    silent = shutil.copy(part, scratch / "silent.mp4")
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        "-i",
        f"file:{silent}",
        "-f",
        "f32le",
        "-ar",
        str(rate),
        "-ac",
        str(len(sound)),
        "-i",
        str(scratch / "audio.raw"),
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-map_metadata",
        "0",
        "-c:v",
        "copy",
        "-c:a",
        "aac",
        *CONTAINER,
        f"file:{part}",
    ]
    with (scratch / "errors.txt").open("w+b") as errors:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors).returncode
        if code:
            raise _failure(code, errors, part, written)


def _failure(code: int, errors: IO[bytes], part: Path, written: int) -> VideoError:
    errors.seek(0)
    said = errors.read().decode("utf-8", "replace").strip().splitlines()[-3:]
    reason = " / ".join(said) or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
    full = "No space left" in reason or "File too large" in reason or code == -getattr(signal, "SIGXFSZ", 0)
    return VideoError(
        f"ffmpeg stopped after {written} frames: {reason}",
        f"space in {part.parent}" if full else "",
        "Free some space, then save again" if full else "Save again; the latents are kept in the output object",
    )


def _escape(text: str) -> str:
    """Text for ffmpeg's metadata file."""
    text = str(text).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    text += " " * text.endswith("\\")  # ffmpeg would take the next line for part of this one
    return "".join("\\" + c if c in "=;#\\\n" else c for c in text)


def _count_frames(path: Path) -> int:
    try:
        return imageio_ffmpeg.count_frames_and_secs(str(path))[0]
    except (RuntimeError, OSError) as error:
        raise VideoError(f"{path} cannot be read", fix=f"ffmpeg says: {str(error).strip().splitlines()[-1]}") from error


def _flush(part: Path) -> None:
    """The bytes on the disk before the name."""
    with part.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise VideoError(f"{part} cannot be flushed to disk ({error.strerror})", fix="Free some space") from error


def video_info(path: str | Path) -> tuple[int, int, int]:
    """(frames, height, width) of a video file.

    Raises:
        InputError: missing. VideoError: not a video.
    """
    path = _existing(path)
    with _reading(path) as (meta, _):
        width, height = meta["size"]
    return _count_frames(path), height, width


def iter_video(path: str | Path, limit: int | None = None) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video file one at a time, the first `limit` of them."""
    path = _existing(path)
    with _reading(path) as (meta, raw):
        width, height = meta["size"]
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


def _existing(path: str | Path) -> Path:
    path = Path(path).absolute()
    if not path.is_file():
        raise InputError(f"{path} does not exist", "a video file")
    return path


@contextmanager
def _reading(path: Path):
    """(what ffmpeg says of the file, its raw frames)."""
    reader = imageio_ffmpeg.read_frames(str(path), output_params=["-fps_mode", "passthrough"])
    try:
        yield next(reader), reader
    except (OSError, RuntimeError, StopIteration, KeyError) as error:
        raise VideoError(f"{path} is not a video that ffmpeg can read") from error
    finally:
        reader.close()


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings stored in a video file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(_existing(path)), "-f", "ffmetadata", "-"]
    run = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if run.returncode:
        raise VideoError(f"{path} is not a video that ffmpeg can read")
    return _parse_metadata(run.stdout.decode("utf-8", "replace"))


def _parse_metadata(text: str) -> dict[str, str]:
    """The global section of ffmpeg's metadata format."""
    entries, current, escaped = [], [""], False
    for c in text.partition("\n")[2]:
        if escaped:
            current[-1] += c
            escaped = False
        elif c == "\\":
            escaped = True
        elif c == "=" and len(current) == 1:
            current.append("")
        elif c == "\n":
            entries.append(current)
            current = [""]
        else:
            current[-1] += c
    return {entry[0]: entry[1] for entry in entries if len(entry) == 2}
