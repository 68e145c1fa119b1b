"""Weight files as `Weights`: named tensors, known by their headers."""

from .open import open_weights
from .weights import TensorInfo, Weights, from_state_dict

__all__ = ["TensorInfo", "Weights", "from_state_dict", "open_weights"]
