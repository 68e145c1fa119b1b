"""Folders of weights: one file, or shards with an index; and the config.json beside them."""

from pathlib import Path

from ...errors import CheckpointError, CheckpointNotFound, some
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


def checked_path(path: str | Path) -> Path:
    """A path that really names something: an empty string would be the current folder.

    Raises:
        CheckpointNotFound: no path.
    """
    if not isinstance(path, (str, Path)) or not str(path).strip() or "\0" in str(path):
        raise CheckpointNotFound(f"the model is {path!r}", "the path of a model folder or file")
    path = Path(path)
    try:
        path.exists()
    except (OSError, ValueError) as error:  # too long, or not encodable as a file name on this system
        raise CheckpointNotFound(
            f"{str(path)[:200]!r} is no path ({error})", "the path of a model folder or file"
        ) from error
    return path


def weight_files(folder: Path) -> list[Path]:
    """The shards that the folder's index lists, or its only weight file.

    Raises:
        CheckpointNotFound: no weight file, several without an index, or missing shards.
        CheckpointError: a damaged index.
    """
    index = find_index(folder)
    if index is not None:
        return [folder / name for name in sorted(set(read_index(index).values()))]
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
    preferred = [file for file in files if file.suffix.lower() == ".safetensors"] or files
    if len(preferred) > 1:  # the 5B release keeps VAE and text encoder beside the transformer
        preferred = [file for file in preferred if file.stem.startswith("diffusion_pytorch_model")] or preferred
    if len(preferred) != 1:
        found = ", ".join(file.name for file in preferred) or "no weight file"
        raise CheckpointNotFound(f"{found} in {folder}", "one weight file, or shards with their index.json")
    return preferred


def single_files(folder: Path) -> list[Path]:
    """Weight files in a folder and below it that ComfyUI keeps models in; a pickle is none of them."""
    return sorted(file for file in folder.rglob("*") if SUFFIXES.get(file.suffix.lower()) in ("safetensors", "gguf"))


def holds_part(folder: Path) -> bool:
    """Whether the weights in a folder are those of one part: a single .safetensors file, or shards with an index."""
    return find_index(folder) is not None or len(list(folder.glob("*.safetensors"))) == 1


def read_config(folder: Path) -> dict | None:
    """The folder's config.json, or None."""
    path = folder / "config.json"
    return load_json(path) if path.is_file() else None


def find_index(folder: Path) -> Path | None:
    """The index of the folder's shards; the one of safetensors shards comes first."""
    indices = sorted(
        folder.glob("*.index.json"), key=lambda index: (index.name != _INDEX, ".safetensors." not in index.name)
    )
    return indices[0] if indices else None


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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or not encodable as a file name on this system
        return False
