"""Where the parts of a model lie in the folders that people have."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFound, quoted
from .build import identify_part, sibling_config
from .formats import (
    Weights,
    are_one_part,
    checked_path,
    find_index,
    listed,
    load_json,
    single_files,
    weights_below,
)
from .identify import expert_from_name
from .infer import infer_dit, infer_vae
from .key_maps import PARTS, find_part

Open = Callable[[Path], Weights]  # opens a file once, however often it is asked for
MODEL = ("dit", "vae", "text_encoder")  # what a folder of single files has to hold
_WHOLE = ("model_index.json", "high_noise_model", "low_noise_model", "google")  # only a whole model's folder has them
_OFFICIAL_VAE = ("*VAE*.pth", "*VAE*.safetensors")
_OFFICIAL_TEXT = ("models_t5*.pth", "models_t5*.safetensors")
_OFFICIAL_CLIP = ("models_clip*.pth", "models_clip*.safetensors")
_HUB_NAME = re.compile(r"[\w-]+/[\w.-]+")  # such as Wan-AI/Wan2.2-T2V-A14B


@dataclass(frozen=True)
class ModelFolder:
    """Where each part of a model lies.

    Attributes:
        layout: official | diffusers | comfyui.
        high, low: transformer file or folder; low is None for a single model.
        tokenizer: its folder, or the text-encoder file that embeds it.
        boundary: as the folder states it, or None.
        named: whether names or metadata say which expert is which; else they are in alphabetical order.
        image_encoder: file or folder of the CLIP vision encoder, where there is one.
    """

    layout: str
    high: Path
    low: Path | None
    vae: Path
    text_encoder: Path
    tokenizer: Path
    boundary: float | None = None
    named: bool = True
    image_encoder: Path | None = None


def find_parts(path: str | Path, open_once: Open) -> ModelFolder:
    """The parts in an official folder, a diffusers folder, or a folder of ComfyUI single files.

    Raises:
        CheckpointNotFound: no folder, an empty one, or one that lacks a part.
        CheckpointError: several candidates for one part.
    """
    folder = checked_path(path)
    if not folder.is_dir():
        if folder.exists():
            raise CheckpointNotFound(
                f"{path} is a file",
                "the folder with all of the model's files",
                f"Give {folder.parent}, if they lie there",
            )
        release = path if _HUB_NAME.fullmatch(str(path)) else "Wan-AI/Wan2.2-T2V-A14B"
        raise CheckpointNotFound(
            f"{path} is not a folder",
            "a folder with the model's files",
            f"Download a release first, for instance with: hf download {release} --local-dir FOLDER",
        )
    if not listed(folder):
        raise CheckpointNotFound(f"{folder} is empty", "a folder with the model's files", "Finish the download")
    if (folder / "model_index.json").is_file():
        return _diffusers(folder)
    if (folder / "high_noise_model").is_dir() or (folder / "low_noise_model").is_dir() or sibling_config(folder):
        return _official(folder)
    return _comfyui(folder, open_once)


def holds_part(folder: Path, open_once: Open) -> bool:
    """Whether a folder holds one part of a model, as `open_weights` opens it, and nothing beside it.

    Raises:
        CheckpointError: a folder that no model lies in; see `weights_below`.
    """
    if _named(folder, (*_WHOLE, *_OFFICIAL_TEXT)):
        return False
    if find_index(folder) is not None:
        return True
    files = weights_below(folder)
    if not are_one_part(files) or any(file.parent != folder for file in files):
        return False
    return len(files) > 1 or not all(find_part(kind, open_once(files[0])) for kind in MODEL)  # else an all-in-one file


def _named(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for path in listed(folder) if any(fnmatchcase(path.name, pattern) for pattern in patterns)]


def _official(folder: Path) -> ModelFolder:
    high, low = folder / "high_noise_model", folder / "low_noise_model"
    if high.is_dir() != low.is_dir():
        present, absent = (high, low) if high.is_dir() else (low, high)
        raise CheckpointNotFound(
            f"{folder} has {present.name} but no {absent.name}", "both experts", f"Download {absent.name} as well"
        )
    two = high.is_dir()
    return ModelFolder(
        "official",
        high=high if two else folder,
        low=low if two else None,
        vae=_only(folder, _OFFICIAL_VAE, "VAE file (Wan2.1_VAE.pth or Wan2.2_VAE.pth)"),
        text_encoder=_only(folder, _OFFICIAL_TEXT, "text encoder (models_t5_umt5-xxl-enc-bf16.pth)"),
        tokenizer=_part(folder / "google" / "umt5-xxl", "the tokenizer"),
        image_encoder=next(iter(_named(folder, _OFFICIAL_CLIP)), None),
    )


def _diffusers(folder: Path) -> ModelFolder:
    index = load_json(folder / "model_index.json")
    second, boundary = index.get("transformer_2") or [None, None], index.get("boundary_ratio")
    is_ratio = boundary is None or (
        isinstance(boundary, (int, float)) and not isinstance(boundary, bool) and 0 <= boundary <= 1
    )
    if not isinstance(second, list) or len(second) != 2 or not is_ratio:
        raise CheckpointError(
            f"{folder / 'model_index.json'} has transformer_2 {quoted(second, 100)} and boundary_ratio "
            f"{quoted(boundary, 60)}",
            "the names of a library and a class, and a number from 0 to 1",
            "Download the file again",
        )
    two = second[1] is not None
    if boundary is not None and not two:
        raise CheckpointError(
            f"{folder / 'model_index.json'} names one transformer and a boundary_ratio of {boundary}",
            "transformer_2 as well: the boundary is where it takes over",
            "Download the folder again",
        )
    return ModelFolder(
        "diffusers",
        high=_part(folder / "transformer", "the transformer (high-noise expert)" if two else "the transformer"),
        low=_part(folder / "transformer_2", "the low-noise expert") if two else None,
        vae=_part(folder / "vae", "the VAE"),
        text_encoder=_part(folder / "text_encoder", "the text encoder"),
        tokenizer=_part(folder / "tokenizer", "the tokenizer"),
        boundary=boundary,
        image_encoder=folder / "image_encoder" if (folder / "image_encoder").is_dir() else None,
    )


def _comfyui(folder: Path, open_once: Open) -> ModelFolder:
    files = single_files(folder)
    candidates = {kind: [file for file in files if find_part(kind, open_once(file))] for kind in PARTS}
    for kind in MODEL:
        if not candidates[kind]:
            raise CheckpointNotFound(
                f"{folder} has no {PARTS[kind].removeprefix('a ')}",
                "an official folder, a diffusers folder, or ComfyUI's single .safetensors or .gguf files",
                "docs/python.md, 'Weights', says which files a model needs",
            )
    experts = {
        file: expert_from_name(str(file.relative_to(folder)), open_once(file).metadata) for file in candidates["dit"]
    }
    high, low, named = _experts(experts, folder)
    vaes = candidates["vae"]
    if len(vaes) > 1:  # one for the 14B models and one for the 5B, as ComfyUI's own folders have them
        channels = infer_dit(identify_part(open_once(high), "dit"), sibling_config(high)).out_channels
        own = [file for file in vaes if infer_vae(identify_part(open_once(file), "vae")).z_channels == channels]
        vaes = own or vaes
    vae, text_encoder = _single(vaes, "vae", folder), _single(candidates["text_encoder"], "text_encoder", folder)
    image_encoder = _image_encoder(candidates["image_encoder"], high, folder, open_once)
    return ModelFolder("comfyui", high, low, vae, text_encoder, text_encoder, named=named, image_encoder=image_encoder)


def _image_encoder(files: list[Path], dit: Path, folder: Path, open_once: Open) -> Path | None:
    """The CLIP vision encoder that the transformer takes, of those in the folder; None where it takes none."""
    width = infer_dit(identify_part(open_once(dit), "dit"), sibling_config(dit)).image_dim if files else 0
    if not width:
        return None
    if len(files) > 1:  # such as ViT-L of other models
        towers = {file: identify_part(open_once(file), "image_encoder") for file in files}
        files = [file for file in files if towers[file].shape("embeddings.class_embedding") == (width,)] or files
    return _single(files, "image_encoder", folder)


def _experts(experts: Mapping[Path, str | None], folder: Path) -> tuple[Path, Path | None, bool]:
    """The pair, or the only file; and whether names or metadata say which is which.

    Args:
        experts: file → "high", "low" or None.
    """
    files = list(experts)
    high, low = ([file for file in files if experts[file] == word] for word in ("high", "low"))
    if len(files) == 1 and not (high or low):
        return files[0], None, True
    if len(files) == 2 and len(high) == len(low) == 1:
        return high[0], low[0], True
    if len(files) == 2 and not (high or low):
        return files[0], files[1], False
    names = ", ".join(file.name for file in files)
    if len(files) == 1:
        other = "low" if high else "high"
        raise CheckpointNotFound(f"{folder} has {names} but no {other}-noise expert", "both experts")
    raise CheckpointError(
        f"{folder} has {len(files)} transformers: {names}",
        "one, or two with 'high' and 'low' in their names",
        "Move the others to another folder",
    )


def _single(files: list[Path], kind: str, folder: Path) -> Path:
    if len(files) > 1:
        raise CheckpointError(
            f"{folder} has {len(files)} files that are {PARTS[kind]}: {', '.join(file.name for file in files)}", "one"
        )
    return files[0]


def _only(folder: Path, patterns: tuple[str, ...], what: str) -> Path:
    files = _named(folder, patterns)
    if not files:
        raise CheckpointNotFound(f"{folder} has no {what}", fix="Download the file as well")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{folder} has {names}", f"one {what}", "Move the others to another folder")
    return files[0]


def _part(path: Path, what: str) -> Path:
    try:
        found = path.is_dir()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})", "a folder that you may open") from error
    if not found:
        raise CheckpointNotFound(f"{path} is missing", what, "Download the folder again")
    return path
