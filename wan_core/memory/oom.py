"""Running out of memory, told in one way whoever noticed it."""

import torch

from ..errors import OutOfMemory

_SIGNS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the host has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


class typed_oom:
    """While active, a shortage becomes OutOfMemory, without the frames (and so the tensors) of the work that failed.

    Args:
        device: named in the message.
    """

    def __init__(self, device: torch.device):
        self.device = device

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, frames) -> None:
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
