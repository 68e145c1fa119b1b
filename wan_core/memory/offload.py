"""One large module on the device at a time, the next one read ahead from disk meanwhile."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

PAGE = 4096


class ModelOffloader:
    """Room on a device for modules whose weights live on the host.

    With `exclusive`, bringing a module first releases the one that is there. A release drops the device copies and
    points the parameters back at their host tensors; nothing is copied back and no second host copy exists.
    """

    def __init__(self, device: torch.device | str = "cpu", exclusive: bool = False):
        self.device, self.exclusive = torch.device(device), exclusive
        self._hosts: dict[nn.Module, dict[str, Tensor]] = {}  # of the modules on the device
        self._reader: _Reader | None = None

    @property
    def resident(self) -> tuple[nn.Module, ...]:
        """The modules whose weights are on the device now."""
        return tuple(self._hosts)

    def load(self, module: nn.Module) -> nn.Module:
        """The module, with its weights on the device."""
        if module in self._hosts:
            return module
        if self.exclusive:
            self.offload()
        host = module.state_dict()
        module.load_state_dict({name: t.to(self.device, non_blocking=True) for name, t in host.items()}, assign=True)
        self._hosts[module] = host
        return module

    def offload(self, *modules: nn.Module) -> None:
        """Take these modules, or all, off the device."""
        for module in modules or self.resident:
            if module in self._hosts:
                module.load_state_dict(self._hosts.pop(module), assign=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def prefetch(self, module: nn.Module) -> None:
        """Start to read the module's mapped weights into memory in the background."""
        if self._reader is not None and self._reader.module is module:
            return
        self.stop_reading()
        self._reader = _Reader(module)

    def stop_reading(self) -> None:
        """End the background read, finished or not."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def end_run(self) -> None:
        """A run has ended, well or not: stop reading and, where modules take turns, leave the device empty."""
        self.stop_reading()
        if self.exclusive:
            self.offload()


class _Reader:
    """Touches every page of a module's host tensors, so that their file is in memory when it is needed."""

    def __init__(self, module: nn.Module):
        self.module = module
        self._tensors = [held for p in module.parameters() for held in _held(p.data)]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="wan-read-ahead", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while self._tensors and not self._stopped.is_set():
            tensor = self._tensors.pop(0)
            if tensor.device.type == "cpu" and tensor.is_contiguous():
                tensor.view(-1).view(torch.uint8)[::PAGE].max()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def _held(tensor: Tensor) -> list[Tensor]:
    """The tensors that hold the bytes of this one: itself, or the parts of a packed one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]


class OffloadedExpert:
    """An expert that moves into the offloader when it is called and starts to read its successor.

    Args:
        module: the expert.
        offloader: where it runs.
        successor: the expert that will be needed after it, or None.
    """

    def __init__(self, module: nn.Module, offloader: ModelOffloader, successor: nn.Module | None = None):
        self.module, self.offloader, self.successor = module, offloader, successor

    def session(self) -> Callable[..., Tensor]:
        """The expert for one sampling run; it is brought back whenever something else took its place."""
        run = self.module.session()

        def call(*args, **kwargs) -> Tensor:
            self.offloader.load(self.module)
            if self.successor is not None:
                self.offloader.prefetch(self.successor)
            return run(*args, **kwargs)

        return call

    def __call__(self, *args, **kwargs) -> Tensor:
        return self.session()(*args, **kwargs)
