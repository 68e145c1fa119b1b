"""Where weights are, and how much memory the models need."""

from .offload import ModelOffloader, OffloadedExpert
from .oom import typed_oom

__all__ = ["ModelOffloader", "OffloadedExpert", "typed_oom"]
