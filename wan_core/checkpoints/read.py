"""Opening weight files: headers first, then tensors mapped from the file, so that nothing is held twice."""

import json
import math
import struct
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Optional

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, CheckpointNotFound

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
_INDEX = "diffusion_pytorch_model.safetensors.index.json"  # of transformers; others follow
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format


class TensorInfo(NamedTuple):
    """What a header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Optional[Path] = None  # None: not in a safetensors file
    stored_name: str = ""

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


class Weights:
    """Named tensors of one model part, from a file, several shards or a state dict.

    Attributes:
        info: name → TensorInfo; known without reading any tensor.
        metadata: strings from the headers.
        source: the path, for messages.
        size: bytes on disk, or in memory for a state dict.
    """

    def __init__(self, info: Mapping[str, TensorInfo], places: Mapping, metadata, source: str, size: int):
        self.info, self.metadata, self.source, self.size = dict(info), dict(metadata), source, size
        # Of tensors that are not in safetensors files: name → (the mapping they are in, their name there).
        self._places = dict(places)
        self._open: dict[Path, safe_open] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.info

    def __iter__(self) -> Iterator[str]:
        return iter(self.info)

    def shape(self, name: str, dims: Optional[int] = None) -> tuple[int, ...]:
        """Shape of a tensor that has to be there, with this many dimensions."""
        found = self.info[name].shape if name in self else None
        if found is None or (dims is not None and len(found) != dims):
            what = "lacks" if found is None else f"has a tensor of shape {found} as"
            raise CheckpointError(f"{self.source} {what} {name}", "a complete checkpoint", "Download it again")
        return found

    def mapped(self, name: str) -> Tensor:
        """The tensor as it lies in the file; its pages are read when it is used."""
        info = self.info[name]
        if info.file is None:
            source, stored = self._places[name]
            return source[stored]
        if info.file not in self._open:
            self._open[info.file] = safe_open(info.file, "pt")
        return self._open[info.file].get_tensor(info.stored_name)

    def read(self, name: str) -> Tensor:
        """The tensor through a mapping of its own, so that its pages are given back together with it."""
        info = self.info[name]
        if info.file is None:
            source, stored = self._places[name]
            return source.read(stored) if isinstance(source, _Pickle) else source[stored]
        with safe_open(info.file, "pt") as file:
            return file.get_tensor(info.stored_name)

    def renamed(self, names: Mapping[str, str]) -> "Weights":
        """Only the tensors in `names` (ours → theirs), under our names."""
        return Weights(
            {ours: self.info[theirs] for ours, theirs in names.items()},
            {ours: self._places[theirs] for ours, theirs in names.items() if theirs in self._places},
            self.metadata, self.source, self.size,
        )  # fmt: skip


def from_state_dict(state: Mapping[str, Tensor], source: str = "the state dict") -> Weights:
    wrong = next((name for name, t in state.items() if not isinstance(t, Tensor)), None)
    if wrong is not None:
        raise CheckpointError(f"{source} has a {type(state[wrong]).__name__} under {wrong!r}", "tensors alone")
    state = {name: t.detach() for name, t in state.items()}
    info = {name: TensorInfo(t.dtype, tuple(t.shape)) for name, t in state.items()}
    return Weights(info, {name: (state, name) for name in info}, {}, source, sum(t.nbytes for t in state.values()))


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
    if path.suffix in PICKLES:
        return _open_pickle(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a known kind of weight file", "one of " + ", ".join(SUFFIXES))
    info, metadata = read_header(path)
    return Weights(info, {}, metadata, str(path), path.stat().st_size)


class _Pickle(Mapping):
    """The tensors of a .pth file, mapped where its format (torch 1.6 and later) allows.

    Reading much of a mapped one opens it again, which gives back the pages read so far.
    """

    WINDOW = 64 << 20  # bytes

    def __init__(self, path: Path):
        self.path, self._read, self._fresh = path, 0, None
        self.tensors, self.mapped = _load_pickle(path)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def read(self, name: str) -> Tensor:
        if not self.mapped:
            return self.tensors.pop(name)  # nobody needs it here once it is somewhere else
        if self._fresh is None or self._read > self.WINDOW:
            self._fresh, self._read = None, 0
            self._fresh, _ = _load_pickle(self.path)
        self._read += self._fresh[name].nbytes
        return self._fresh[name]


def _load_pickle(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The named tensors, and whether they are mapped."""
    mapped = True
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:  # the format before torch 1.6 cannot be mapped
            if "mmap" not in str(error):
                raise
            state, mapped = torch.load(path, map_location="cpu", weights_only=True), False
    except Exception as error:  # a damaged pickle can fail in any way that a program can
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as plain weights",
            "a complete file that holds tensors and nothing else",
            "Download it again, or use the .safetensors version",
        ) from error
    tensors = {name: t.detach() for name, t in state.items() if isinstance(t, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors", "a state dict")
    for name, t in tensors.items():
        if math.prod(t.shape) * t.element_size() > t.untyped_storage().nbytes():
            raise CheckpointError(f"{path} claims {tuple(t.shape)} for {name}, more than it holds", "a complete file")
    return tensors, mapped


def _open_pickle(path: Path) -> Weights:
    refuse_stand_ins(path)
    tensors = _Pickle(path)
    info = {name: TensorInfo(t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    return Weights(info, {name: (tensors, name) for name in info}, {}, str(path), path.stat().st_size)


def refuse_stand_ins(path: Path) -> None:
    """Files that a failed download leaves under the right name."""
    with path.open("rb") as file:
        start = file.read(200)
    if not start:
        raise CheckpointError(f"{path} is empty", fix="Download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes", "the weights", "Run `git lfs pull` in its folder"
        )  # fmt: skip
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page", "the weights", "Download it again; the link may need a login")


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors and metadata of a safetensors file, checked against the file's size; no tensor is read.

    Raises:
        CheckpointError: truncated, over-long or inconsistent.
    Source: the safetensors format description.
    """
    refuse_stand_ins(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size or length > _LARGEST_HEADER:
            raise _damaged(path, f"{size:,} bytes, too few for its header")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        info, spans = {}, []
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            if entry["dtype"] not in _DTYPES:
                raise CheckpointError(f"{path} has a tensor of dtype {entry['dtype']!r}", "one of " + ", ".join(_DTYPES))
            info[name] = TensorInfo(_DTYPES[entry["dtype"]], tuple(entry["shape"]), path, name)
            if not 0 <= first <= last or last - first != info[name].parameters * info[name].dtype.itemsize:
                raise ValueError(name)
            spans.append((first, last))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "a header that makes no sense") from error
    expected = 8 + length + max((last for _, last in spans), default=0)
    if size != expected:
        raise _damaged(path, f"{size:,} bytes where its header describes {expected:,}")
    try:
        safe_open(path, "pt")  # the library's own checks: overlaps, holes, unknown fields
    except SafetensorError as error:
        raise _damaged(path, f"a header that safetensors refuses ({error})") from error
    return info, metadata


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: it has {what}", "a complete safetensors file", "Download it again")
