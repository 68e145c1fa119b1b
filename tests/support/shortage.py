"""Memory that runs out at a chosen operation of torch."""

import errno
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# As the host, an accelerator, Python, the kernel and oneDNN say it.
ERRORS = (
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: tried 9"),
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    lambda: MemoryError(),
    lambda: OSError(errno.ENOMEM, "Cannot allocate memory"),
    lambda: RuntimeError("could not create a primitive"),
)


class Shortage(TorchDispatchMode):
    """Fails at one operation. Those that only read or view are counted too, unless `allocating`.

    Args:
        at: which one fails, from 1; 0: none, `count` then says how many there are.
    """

    def __init__(self, at: int = 0, allocating: bool = False):
        super().__init__()
        self.at, self.allocating, self.count = at, allocating, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = [x for x in tree_iter(result) if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in given]
        if made or not self.allocating:
            self.count += 1
            if self.count == self.at:
                raise ERRORS[self.at % len(ERRORS)]()
        return result


def shortages(action, most: int, allocating: bool = False) -> Iterator[Shortage]:
    """Shortages at up to `most` operations of an action, evenly spread over them."""
    with Shortage(allocating=allocating) as all_of_it:
        action()
    assert all_of_it.count
    for at in range(1, all_of_it.count + 1, -(-all_of_it.count // most)):
        yield Shortage(at, allocating)
