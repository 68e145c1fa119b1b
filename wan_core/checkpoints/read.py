"""Opening weight files: headers first, then tensors mapped from the file, so that nothing is held twice."""

import json
from pathlib import Path
from typing import Optional

from ..errors import CheckpointError, CheckpointNotFound
from .gguf import GGUF
from .header import read_header, refuse_stand_ins
from .pickles import open_pickle
from .weights import TensorInfo, Weights, from_state_dict

__all__ = [
    "SUFFIXES", "TensorInfo", "Weights", "from_state_dict", "load_json", "named_path", "open_weights", "read_config",
    "read_header", "refuse_stand_ins", "weight_files",
]  # fmt: skip

_INDEX = "diffusion_pytorch_model.safetensors.index.json"  # of transformers; others follow


def open_weights(path: str | Path) -> Weights:
    """A weight file, or a folder with one weight file or the shards that its index lists.

    Raises:
        CheckpointNotFound: nothing there, or a shard is missing.
        CheckpointError: not a weight file, truncated, or damaged.
    """
    path = named_path(path)
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise CheckpointNotFound(f"{path} does not exist", "a weight file or a folder with one")
    files = weight_files(path)
    parts = [_open_file(file) for file in files]
    if len(parts) == 1:
        return parts[0]
    info = {name: entry for part in parts for name, entry in part.info.items()}
    places = {name: place for part in parts for name, place in part._places.items()}
    metadata = {key: value for part in parts for key, value in part.metadata.items()}
    return Weights(info, places, metadata, str(path), sum(part.size for part in parts))


def named_path(path: str | Path) -> Path:
    """A path that somebody has really named; an empty one would be the current folder."""
    if not isinstance(path, (str, Path)) or not str(path).strip() or "\0" in str(path):
        raise CheckpointNotFound(f"the model is {path!r}", "the path of a model folder or file")
    return Path(path)


def weight_files(folder: Path) -> list[Path]:
    """The shards that the folder's index lists, or its only weight file."""
    indices = sorted(folder.glob("*.index.json"), key=lambda index: (index.name != _INDEX, ".safetensors." not in index.name))
    if indices:
        weight_map = load_json(indices[0]).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in weight_map.values()
        ):
            raise CheckpointError(f"{indices[0]} has no weight_map of file names", fix="Download the file again")
        names = sorted(set(weight_map.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise CheckpointNotFound(
                f"{folder} lacks {', '.join(missing) or 'every shard'}", f"all {len(names)} files of {indices[0].name}",
                "Download the missing files again",
            )  # fmt: skip
        return [folder / name for name in names]
    files = sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES)
    preferred = [file for file in files if file.suffix == ".safetensors"] or files
    if len(preferred) > 1:  # the 5B release keeps VAE and text encoder beside the transformer
        preferred = [file for file in preferred if file.stem.startswith("diffusion_pytorch_model")] or preferred
    if len(preferred) != 1:
        found = ", ".join(file.name for file in preferred) or "no weight file"
        raise CheckpointNotFound(f"{found} in {folder}", "one weight file, or shards with their index.json")
    return preferred


def load_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON", fix="Download the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object", fix="Download the file again")
    return value


def read_config(folder: Path) -> Optional[dict]:
    """The folder's config.json, or None."""
    path = folder / "config.json"
    return load_json(path) if path.is_file() else None


def _open_file(path: Path) -> Weights:
    if path.suffix not in _READERS:
        raise CheckpointError(f"{path} is not a known kind of weight file", "one of " + ", ".join(SUFFIXES))
    return _READERS[path.suffix](path)


def _open_safetensors(path: Path) -> Weights:
    info, metadata = read_header(path)
    return Weights(info, {}, metadata, str(path), path.stat().st_size)


def _open_gguf(path: Path) -> Weights:
    refuse_stand_ins(path)
    file = GGUF(path)
    info = {name: TensorInfo(t.dtype, t.shape, packing=t.packing) for name, t in file.tensors.items()}
    return Weights(info, {name: (file, name) for name in info}, file.metadata, str(path), path.stat().st_size)


_READERS = {
    ".safetensors": _open_safetensors,
    ".gguf": _open_gguf,
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt"), open_pickle),
}
SUFFIXES = tuple(_READERS)
