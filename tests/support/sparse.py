"""Weight files of any size that take no room on the disk."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def write_sparse(path: Path, state: Mapping[str, Tensor]) -> Path:
    """A safetensors file of bfloat16 zeros with the names and shapes of `state`."""
    entries, end = {}, 0
    for name, t in state.items():
        first, end = end, end + 2 * t.numel()
        entries[name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [first, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, path.stat().st_size + end)
    return path
