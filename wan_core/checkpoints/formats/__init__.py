"""Weight files: from bytes to `Weights`. Nothing outside this package knows how a file format works."""

from .folder import (
    are_one_part,
    checked_path,
    find_index,
    listed,
    read_config,
    single_files,
    weight_files,
    weights_below,
)
from .json_file import load_json
from .open import SUFFIXES, open_weights
from .weights import TensorInfo, Weights, from_state_dict

__all__ = [
    "SUFFIXES",
    "TensorInfo",
    "Weights",
    "are_one_part",
    "checked_path",
    "find_index",
    "from_state_dict",
    "listed",
    "load_json",
    "open_weights",
    "read_config",
    "single_files",
    "weight_files",
    "weights_below",
]
