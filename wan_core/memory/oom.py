"""Out-of-memory errors of every backend as one typed error."""

from contextlib import AbstractContextManager
from types import TracebackType

import torch

from ..errors import OutOfMemory

_MESSAGES = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the host has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def typed_oom(device: torch.device) -> AbstractContextManager[None]:
    """While active, running out of memory is raised as OutOfMemory.

    The new error leads to no frame of the work that failed, so it keeps none of its tensors alive.

    Args:
        device: named in the message.
    """
    return _TypedOom(device)


class _TypedOom(AbstractContextManager[None]):
    # A generator under @contextmanager would not do: its frame, in the new error's traceback, holds the old error.
    def __init__(self, device: torch.device):
        self.device = device

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            return
        # Nothing may lead from the new error to the old frames.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        del frames
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutOfMemory(
            f"out of memory on {self.device}: {reason}",
            "",
            "Call enable_model_cpu_offload(), or ask for fewer frames or a smaller size",
        ) from None
