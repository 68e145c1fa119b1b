"""Opening a weight file or the shards of a folder: the suffix and the first bytes choose the reader."""

import string
from pathlib import Path

from ...errors import CheckpointError, CheckpointNotFound, excerpt
from .folder import SUFFIXES, checked_path, find_index, read_index, weight_files
from .gguf import read_gguf
from .limits import LARGEST_HEADER, MOST_TENSORS
from .pth import read_pth
from .safetensors import read_safetensors
from .weights import Weights

_READERS = {"safetensors": read_safetensors, "gguf": read_gguf, "pth": read_pth}


def open_weights(path: str | Path) -> Weights:
    """A weight file, or a folder with one weight file or the shards that its index lists. Only headers are read.

    Raises:
        CheckpointNotFound: nothing there, or a shard is missing.
        CheckpointError: not a weight file, truncated, or damaged.
    """
    path = checked_path(path)
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise CheckpointNotFound(f"{path} does not exist", "a weight file or a folder with one")
    index = find_index(path)
    if index is None:
        return _open_file(weight_files(path)[0])
    return _open_shards(path, index)


def _open_shards(folder: Path, index: Path) -> Weights:
    """The shards of an index as one, with every tensor in the shard that the index says and in no other."""
    weight_map = read_index(index)
    parts: list[Weights] = []
    shard_of: dict[str, str] = {}
    for shard in sorted(set(weight_map.values())):
        parts.append(_open_file(folder / shard))
        twice = next((name for name in parts[-1] if name in shard_of), None)
        if twice is not None:
            raise CheckpointError(
                f"{folder} has {excerpt(twice, 100)} in {excerpt(shard_of[twice], 50)} and in {excerpt(shard, 50)}",
                "every tensor once",
                "Download it again",
            )
        shard_of |= dict.fromkeys(parts[-1], shard)
        if len(shard_of) > MOST_TENSORS:
            raise CheckpointError(f"{folder} has more than {MOST_TENSORS:,} tensors", "the files of one model")
    missing = next((name for name, shard in weight_map.items() if shard_of.get(name) != shard), None)
    if missing is not None:
        raise CheckpointError(
            f"{excerpt(weight_map[missing], 100)} lacks {excerpt(missing, 100)}, which {index} says it has",
            "shards of one release",
            "Download them again",
        )
    return Weights.joined(parts, str(folder))


def _open_file(path: Path) -> Weights:
    expected = SUFFIXES.get(path.suffix.lower())
    if expected is None:
        raise CheckpointError(f"{path} is not a known kind of weight file", "one of " + ", ".join(SUFFIXES))
    if not path.is_file():  # opening a named pipe would block
        raise CheckpointNotFound(f"{path} is no file", "a weight file")
    try:
        with path.open("rb") as file:
            start = file.read(200)
            _reject_failed_download(path, start)
            found = _recognise(start)
            if found not in (None, expected):
                raise CheckpointError(
                    f"{path} is a .{found} file under another name", f"its own ending, .{found}", "Rename it"
                )
            file.seek(0)
            return _READERS[expected](path, file)
    except OSError as error:
        why = error.strerror or excerpt(error)  # the safetensors library gives no number
        raise CheckpointError(f"{path} cannot be opened ({why})", "a regular file that you may read") from error


def _reject_failed_download(path: Path, start: bytes) -> None:
    """Raises CheckpointError for what a failed download leaves under the right name; `start` is its first 200 bytes."""
    if not start:
        raise CheckpointError(f"{path} is empty", fix="Download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes",
            "the weights",
            "Run `git lfs pull` in its folder",
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<!--")):
        raise CheckpointError(f"{path} is a web page", "the weights", "Download it again; the link may need a login")
    # Every kind of weight file has a zero byte early on.
    if len(start) > 8 and not start.strip(string.printable.encode()):
        text = " ".join(start[:60].decode().split())
        raise CheckpointError(f"{path} is a text that begins with {text!r}", "the weights", "Download it again")


def _recognise(start: bytes) -> str | None:
    """The format that a file's first bytes belong to, or None where they do not tell."""
    if start.startswith(b"GGUF"):
        return "gguf"
    if start.startswith(b"PK\3\4"):
        return "pth"
    header = int.from_bytes(start[:8], "little")
    return "safetensors" if start[8:9] == b"{" and 0 < header <= LARGEST_HEADER else None
