"""One large module on the device at a time, the next one prefetched from disk meanwhile."""

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

PAGE = 4096
Loaded = TypeVar("Loaded", bound=nn.Module)


class ModelOffloader:
    """Moves modules between the host, where their weights live, and a device.

    Offloading drops the device copies and points the parameters back at their host tensors: nothing is copied back, and
    there is no second host copy.

    Args:
        device: where modules run.
        exclusive: one module at a time; loading another offloads the one that is there.
    """

    def __init__(self, device: torch.device | str = "cpu", exclusive: bool = False):
        self.device, self.exclusive = torch.device(device), exclusive
        self._host_weights: dict[nn.Module, dict[str, Tensor]] = {}  # of the modules on the device
        self._prefetch: _Prefetch | None = None

    @property
    def resident(self) -> tuple[nn.Module, ...]:
        """The modules whose weights are on the device now."""
        return tuple(self._host_weights)

    def load(self, module: Loaded) -> Loaded:
        """The module, with its weights on the device."""
        if module in self._host_weights:
            return module
        if self.exclusive:
            self.offload()
        host = module.state_dict()
        moved = {name: t.to(self.device, non_blocking=True) for name, t in host.items()}
        try:
            module.load_state_dict(moved, assign=True)
        except BaseException:  # half of it would be on the device, and counted as its host weights next time
            module.load_state_dict(host, assign=True)
            raise
        self._host_weights[module] = host
        return module

    def offload(self, *modules: nn.Module) -> None:
        """Take these modules, or all, off the device."""
        for module in modules or self.resident:
            if module in self._host_weights:
                module.load_state_dict(self._host_weights.pop(module), assign=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def prefetch(self, module: nn.Module) -> None:
        """Start to read the module's memory-mapped weights from disk, in the background."""
        if self._prefetch is not None and self._prefetch.module is module:
            return
        self.stop_prefetch()
        self._prefetch = _Prefetch(module)

    def wait_for_prefetch(self) -> None:
        """Wait until the background read, if there is one, has finished."""
        if self._prefetch is not None:
            self._prefetch.wait()

    def stop_prefetch(self) -> None:
        """End the background read, finished or not."""
        if self._prefetch is not None:
            self._prefetch.stop()
            self._prefetch = None

    def end_run(self) -> None:
        """A run has ended, well or not: stop prefetching and, where `exclusive`, leave the device empty."""
        self.stop_prefetch()
        if self.exclusive:
            self.offload()


class _Prefetch:
    """A thread that touches every page of a module's host tensors, so that their file is in memory when it is needed.

    Not madvise(MADV_WILLNEED): it fills the page cache alone, so the first use would still fault on every page, and it
    cannot be stopped.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self._tensors = [stored for p in module.parameters() for stored in _stored_tensors(p.data)]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="wan-prefetch", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while self._tensors and not self._stopped.is_set():
            read_pages(self._tensors.pop(0))

    def wait(self) -> None:
        self._thread.join()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def read_pages(tensor: Tensor) -> None:
    """Touch every page of a host tensor, which reads those from disk that are not in memory."""
    if tensor.device.type == "cpu" and tensor.is_contiguous():
        tensor.view(-1).view(torch.uint8)[::PAGE].max()


def _stored_tensors(tensor: Tensor) -> list[Tensor]:
    """The tensors that hold the bytes of this one: itself, or the parts of a quantized one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]


class _OpensSessions(Protocol):
    def session(self) -> Callable[..., Tensor]: ...


class OffloadedExpert:
    """An expert that is loaded onto the device when it is called, and then prefetches its successor.

    Args:
        module: the expert, a module with `session()`.
        offloader: where it runs.
        successor: the expert that will be needed after it, or None.
    """

    def __init__(self, module: nn.Module, offloader: ModelOffloader, successor: nn.Module | None = None):
        self.module, self.offloader, self.successor = module, offloader, successor

    def session(self) -> Callable[..., Tensor]:
        """The expert for one sampling run; it is loaded again whenever something else took its place."""
        run = cast(_OpensSessions, self.module).session()

        def call(*args, **kwargs) -> Tensor:
            self.offloader.load(self.module)
            if self.successor is not None:
                self.offloader.prefetch(self.successor)
            return run(*args, **kwargs)

        return call

    def __call__(self, *args, **kwargs) -> Tensor:
        return self.session()(*args, **kwargs)
