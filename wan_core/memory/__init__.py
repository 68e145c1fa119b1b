"""Where weights are, and how much memory a generation needs."""

from .estimate import MemoryEstimate, estimate
from .offload import DeviceSlot, Offloaded
from .shortage import out_of_memory_as_error

__all__ = ["DeviceSlot", "MemoryEstimate", "Offloaded", "estimate", "out_of_memory_as_error"]
