"""Weight files: from bytes to `Weights`. Nothing outside this package knows how a file format works."""

from .json_file import load_json
from .open import checked_path, open_weights, read_config, weight_files
from .weights import TensorInfo, Weights, from_state_dict

__all__ = [
    "TensorInfo",
    "Weights",
    "checked_path",
    "from_state_dict",
    "load_json",
    "open_weights",
    "read_config",
    "weight_files",
]
