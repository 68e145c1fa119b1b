"""Weight files: from bytes to `Weights`. Nothing outside this package knows how a file format works."""

from .folder import checked_path, holds_part, read_config, single_files, weight_files
from .json_file import load_json
from .open import SUFFIXES, open_weights
from .weights import TensorInfo, Weights, from_state_dict

__all__ = [
    "SUFFIXES",
    "TensorInfo",
    "Weights",
    "checked_path",
    "from_state_dict",
    "holds_part",
    "load_json",
    "open_weights",
    "read_config",
    "single_files",
    "weight_files",
]
