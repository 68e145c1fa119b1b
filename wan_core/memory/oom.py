"""Running out of memory, however a backend says it, as one typed error at the library's doors."""

import errno
import re
from contextlib import ContextDecorator
from types import TracebackType

import torch
from safetensors import SafetensorError

from ..errors import OutOfMemory

_SPENT = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|_ALLOC_FAILED|bad_alloc|can't start new thread"
    r"|could not create a (primitive|memory object)$",  # oneDNN; "… primitive descriptor for …" is another failure
    re.IGNORECASE | re.MULTILINE,
)
_OF_THE_DEVICE = re.compile(r"CUDA|HIP|XPU|MPS|NPU|GPU|CUBLAS|CUDNN|device")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the host has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, SafetensorError)) and _SPENT.search(str(error)) is not None


def typed_oom() -> "_TypedOom":
    """A door of the library: `with typed_oom():`, or `@typed_oom()` above a function.

    What runs out of memory inside, or fails because of it, is raised as OutOfMemory. That error leads to no frame
    inside the door, so it keeps none of the tensors there alive.
    """
    return _TypedOom()


class _TypedOom(ContextDecorator):
    # A generator under @contextmanager would not do: its frame, in the new error's traceback, holds the old error.
    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        cause = error
        while cause is not None and not is_out_of_memory(cause):
            cause = cause.__cause__  # a file that cannot be mapped, say, in an error that names the file
        if error is None or cause is None:
            return
        typed = cause if isinstance(cause, OutOfMemory) else _typed(cause)
        # Nothing may lead from the new error to the old frames.
        for old in (error, cause):
            old.__traceback__ = old.__context__ = old.__cause__ = None
        del frames
        raise typed from None


def _typed(error: BaseException) -> OutOfMemory:
    reason = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
    on_device = isinstance(error, torch.OutOfMemoryError) or _OF_THE_DEVICE.search(reason)
    fewer = "ask for fewer frames or a smaller size"
    return OutOfMemory(
        f"out of memory on the {'device' if on_device else 'host'}: {reason}",
        "",
        f"Call enable_model_cpu_offload() (generate: --offload), or {fewer}"
        if on_device
        else f"Close other programs, or {fewer}",
    )
