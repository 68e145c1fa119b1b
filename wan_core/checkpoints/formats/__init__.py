"""Weight files of every format as named tensors."""

from .open import TensorInfo, Weights, from_state_dict, open_weights

__all__ = ["TensorInfo", "Weights", "from_state_dict", "open_weights"]
