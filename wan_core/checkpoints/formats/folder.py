"""Folders of weights: what lies in them; one file, or shards with an index; and the config.json beside them."""

import os
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from ...errors import CheckpointError, CheckpointNotFound, excerpt, quoted, some
from .json_file import load_json

SUFFIXES = {
    ".safetensors": "safetensors",
    ".sft": "safetensors",
    ".gguf": "gguf",
    ".pth": "pth",
    ".pt": "pth",
    ".bin": "pth",
    ".ckpt": "pth",
}  # suffix → format
_INDEX = "diffusion_pytorch_model.safetensors.index.json"  # of diffusers; transformers and others name it differently
_BASES = ("diffusion_pytorch_model", "model", "pytorch_model")  # how diffusers and transformers name weights
_PLAIN = {"index", "json", *(suffix[1:] for suffix in SUFFIXES)}  # words of such a name that tell no variant
_MOST_FILES, _MOST_WEIGHTS, _DEEPEST = 10_000, 1_000, 8  # of a folder that may be a model


def checked_path(path: str | Path) -> Path:
    """A path that really names something: an empty string would be the current folder.

    Raises:
        CheckpointNotFound: no path.
    """
    if not isinstance(path, (str, Path)) or not str(path).strip() or "\0" in str(path):
        raise CheckpointNotFound(f"the model is {quoted(path)}", "the path of a model folder or file")
    path = Path(path)
    try:
        path.exists()
    except (OSError, ValueError) as error:  # too long, or not encodable as a file name on this system
        why = getattr(error, "strerror", None) or excerpt(error)
        raise CheckpointNotFound(
            f"{quoted(str(path))} is no path ({why})", "the path of a model folder or file"
        ) from error
    return path


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, by name; not what begins with a dot, such as the ._x that macOS puts beside each x.

    Raises:
        CheckpointError: a folder that may not be read.
    """
    return sorted(Path(entry.path) for entry in _scan(folder))


def weight_files(folder: Path) -> list[Path]:
    """The shards that the folder's index lists, or its only weight file; a plain one before a variant such as fp16.

    Raises:
        CheckpointNotFound: no weight file, several without an index, or missing shards.
        CheckpointError: a damaged index.
    """
    index = find_index(folder)
    if index is not None:
        return [folder / name for name in sorted(set(read_index(index).values()))]
    files = [file for file in listed(folder) if file.suffix.lower() in SUFFIXES]
    best = min(map(_rank, files), default=None)
    preferred = [file for file in files if _rank(file) == best]
    if len(preferred) != 1:
        found = ", ".join(file.name for file in preferred[:5]) or "no weight file"
        raise CheckpointNotFound(f"{found} in {folder}", "one weight file, or shards with their index.json")
    return preferred


def weights_below(folder: Path) -> list[Path]:
    """Every weight file in a folder and in those below it. Links to other folders are not followed.

    Raises:
        CheckpointError: a folder that may not be read, or one with more in it than any model has.
    """
    found: list[Path] = []
    level, room = [folder], _MOST_FILES
    for _ in range(_DEEPEST):
        entries = list(islice(chain.from_iterable(map(_scan, level)), room + 1))
        files = [Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False)]
        level = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        found += [file for file in files if file.suffix.lower() in SUFFIXES]
        room -= len(entries)
        if room < 0 or len(found) > _MOST_WEIGHTS:
            raise _no_model(folder, f"{_MOST_FILES:,} files or {_MOST_WEIGHTS:,} weight files in it")
    if level:
        raise _no_model(folder, f"{_DEEPEST} folders inside one another")
    return sorted(found)


def single_files(folder: Path) -> list[Path]:
    """Weight files in a folder and below it that ComfyUI keeps models in; a pickle is none of them."""
    return [file for file in weights_below(folder) if SUFFIXES[file.suffix.lower()] in ("safetensors", "gguf")]


def are_one_part(files: Sequence[Path]) -> bool:
    """Whether these are one file, or forms of one that diffusers or transformers wrote: variants, other formats."""
    bases = {_base(file) for file in files}
    return len(files) == 1 or (len(bases) == 1 and bases <= {*_BASES})


def read_config(folder: Path) -> dict | None:
    """The folder's config.json, or None."""
    path = folder / "config.json"
    return load_json(path) if path.is_file() else None


def find_index(folder: Path) -> Path | None:
    """The index of the folder's shards; that of safetensors comes first, and that of a variant after a plain file.

    Raises:
        CheckpointError: two variants, and nothing plain.
    """
    names = [path for path in listed(folder) if path.suffix == ".json" and ".index." in path.name]
    indices = sorted(
        names, key=lambda path: (_variant(path) != "", path.name != _INDEX, ".safetensors." not in path.name)
    )
    if not indices or not (variant := _variant(indices[0])):
        return indices[0] if indices else None
    if any((folder / f"{base}{suffix}").is_file() for base in _BASES for suffix in SUFFIXES):
        return None
    others = sorted({_variant(path) for path in indices} - {variant})
    if others:
        raise CheckpointError(
            f"{folder} has its weights as {', '.join((variant, *others))}", "one of them", "Move the others elsewhere"
        )
    return indices[0]


def read_index(index: Path) -> dict[str, str]:
    """Tensor name → name of the file beside the index that holds it; all these files exist.

    Raises:
        CheckpointNotFound: a shard is missing.
        CheckpointError: no index.
    """
    weight_map = load_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        weight_map = {"": ""}
    names = set(weight_map.values())
    if not all(name and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} has no weight_map of file names", fix="Download the file again")
    missing = sorted(name for name in names if not _is_file(index.parent / name))
    if missing or not names:
        raise CheckpointNotFound(
            f"{index.parent} lacks {some(missing) or 'every shard'}",
            f"all {len(names)} files of {index.name}",
            "Download the missing files again",
        )
    return weight_map


def _variant(path: Path) -> str:
    """What makes a file or an index another form of the same weights, such as "fp16"; "" for a plain one."""
    words = path.name.split(".")[1:]
    return ".".join(word for word in words if word not in _PLAIN) if _base(path) in _BASES else ""


def _base(path: Path) -> str:
    """model-00001-of-00002.fp16.safetensors → model."""
    return path.name.split(".")[0].partition("-")[0]


def _rank(file: Path) -> tuple[bool, bool, bool]:
    """The transformer first: the 5B release keeps VAE and text encoder beside it. Then plain before variants."""
    return not file.stem.startswith(_BASES[0]), _variant(file) != "", file.suffix.lower() != ".safetensors"


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        (folder / "..").stat()  # refused where the names may be read and the files may not
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror})", "a folder that you may open") from error


def _no_model(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{folder} has more than {what}", "the folder of one model", "Give that folder itself")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or not encodable as a file name on this system
        return False
