"""Opening weight files: headers first, then tensors mapped from the file, so that nothing is held twice."""

import os
from pathlib import Path

from ...errors import CheckpointError, CheckpointNotFound
from .gguf import GGUF
from .json_file import load_json
from .limits import MOST_TENSORS
from .pth.tensors import open_pickle
from .safetensors import kind_by_content, read_header, reject_failed_download
from .weights import TensorInfo, Weights, from_state_dict

__all__ = [
    "SUFFIXES",
    "TensorInfo",
    "Weights",
    "from_state_dict",
    "load_json",
    "checked_path",
    "open_weights",
    "read_config",
    "read_header",
    "reject_failed_download",
    "weight_files",
]

_INDEX = "diffusion_pytorch_model.safetensors.index.json"  # of transformers; others follow


def open_weights(path: str | Path) -> Weights:
    """A weight file, or a folder with one weight file or the shards that its index lists.

    Raises:
        CheckpointNotFound: nothing there, or a shard is missing.
        CheckpointError: not a weight file, truncated, or damaged.
    """
    path = checked_path(path)
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise CheckpointNotFound(f"{path} does not exist", "a weight file or a folder with one")
    index = _find_index(path)
    if index is None:
        return _open_file(weight_files(path)[0])
    return _open_shards(path, index)


def checked_path(path: str | Path) -> Path:
    """A path that somebody has really named; an empty one would be the current folder."""
    if not isinstance(path, (str, Path)) or not str(path).strip() or "\0" in str(path):
        raise CheckpointNotFound(f"the model is {path!r}", "the path of a model folder or file")
    path = Path(path)
    try:
        path.exists()
    except (OSError, ValueError) as error:  # too long, or no name in this system's encoding
        raise CheckpointNotFound(
            f"{str(path)[:200]!r} is no path ({error})", "the path of a model folder or file"
        ) from error
    return path


def weight_files(folder: Path) -> list[Path]:
    """The shards that the folder's index lists, or its only weight file."""
    index = _find_index(folder)
    if index is not None:
        return [folder / name for name in sorted(set(_weight_map(index).values()))]
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
    preferred = [file for file in files if file.suffix.lower() == ".safetensors"] or files
    if len(preferred) > 1:  # the 5B release keeps VAE and text encoder beside the transformer
        preferred = [file for file in preferred if file.stem.startswith("diffusion_pytorch_model")] or preferred
    if len(preferred) != 1:
        found = ", ".join(file.name for file in preferred) or "no weight file"
        raise CheckpointNotFound(f"{found} in {folder}", "one weight file, or shards with their index.json")
    return preferred


def read_config(folder: Path) -> dict | None:
    """The folder's config.json, or None."""
    path = folder / "config.json"
    return load_json(path) if path.is_file() else None


def _find_index(folder: Path) -> Path | None:
    indices = sorted(
        folder.glob("*.index.json"), key=lambda index: (index.name != _INDEX, ".safetensors." not in index.name)
    )
    return indices[0] if indices else None


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name → name of the file beside the index that holds it; all of them are there."""
    weight_map = load_json(index).get("weight_map")
    names = set(weight_map.values()) if _is_text(weight_map) else {""}
    if not all(name and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} has no weight_map of file names", fix="Download the file again")
    missing = sorted(name for name in names if not os.path.isfile(index.parent / name))
    if missing or not names:
        raise CheckpointNotFound(
            f"{index.parent} lacks {', '.join(missing[:3]) + (', …' if len(missing) > 3 else '') or 'every shard'}",
            f"all {len(names)} files of {index.name}",
            "Download the missing files again",
        )
    return weight_map


def _is_text(value) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _open_shards(folder: Path, index: Path) -> Weights:
    """The shards of an index as one, with every tensor where the index says and nowhere else."""
    weight_map = _weight_map(index)
    parts, places = [], {}
    for shard in sorted(set(weight_map.values())):
        parts.append(_open_file(folder / shard))
        twice = next((name for name in parts[-1] if name in places), None)
        if twice is not None:
            raise CheckpointError(
                f"{folder} has {twice} in {places[twice]} and in {shard}", "every tensor once", "Download it again"
            )
        places |= dict.fromkeys(parts[-1], shard)
        if len(places) > MOST_TENSORS:
            raise CheckpointError(f"{folder} has more than {MOST_TENSORS:,} tensors", "the files of one model")
    lost = next((name for name, shard in weight_map.items() if places.get(name) != shard), None)
    if lost is not None:
        raise CheckpointError(
            f"{weight_map[lost]} lacks {lost[:100]}, which {index} says it has",
            "shards of one release",
            "Download them again",
        )
    return Weights.joined(parts, str(folder))


def _open_file(path: Path) -> Weights:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise CheckpointError(f"{path} is not a known kind of weight file", "one of " + ", ".join(SUFFIXES))
    reject_failed_download(path)
    found = kind_by_content(path)
    if found is not None and _READERS[found] is not _READERS[suffix]:
        raise CheckpointError(f"{path} is a {found} file under another name", f"its own ending, {found}", "Rename it")
    return _READERS[suffix](path)


def _open_safetensors(path: Path) -> Weights:
    info, metadata = read_header(path)
    return Weights(info, {}, metadata, str(path), path.stat().st_size)


def _open_gguf(path: Path) -> Weights:
    file = GGUF(path)
    info = {name: TensorInfo(t.dtype, t.shape, qtype=t.qtype) for name, t in file.tensors.items()}
    return Weights(info, {name: (file, name) for name in info}, file.metadata, str(path), path.stat().st_size)


_READERS = {
    **dict.fromkeys((".safetensors", ".sft"), _open_safetensors),
    ".gguf": _open_gguf,
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt"), open_pickle),
}
SUFFIXES = tuple(_READERS)
