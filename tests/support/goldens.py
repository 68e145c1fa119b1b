"""What the official code computes on tiny random weights, recorded once; never regenerated to make a test pass."""

import functools
import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"


class Golden:
    """Tensors of one recording by name, and its config."""

    def __init__(self, name: str):
        with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
            self.config = json.loads(file.metadata()["meta"])["config"]
            self.tensors = {key: file.get_tensor(key) for key in list(file.keys())}

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def get(self, key: str) -> Tensor | None:
        return self.tensors.get(key)

    def weights(self, part: str = "") -> dict[str, Tensor]:
        """State dict of the recorded model, or of one of its parts ("high", "vae", …)."""
        prefix = f"w.{part}." if part else "w."
        return {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}


golden = functools.cache(Golden)


def difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, of shapes that must be equal."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a - b).abs().max().item()
