"""Where weights are, and how much memory a generation needs."""

from .estimate import MemoryEstimate, estimate
from .offload import ModelOffloader, OffloadedExpert
from .oom import typed_oom

__all__ = ["MemoryEstimate", "ModelOffloader", "OffloadedExpert", "estimate", "typed_oom"]
