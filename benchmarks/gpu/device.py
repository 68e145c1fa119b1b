"""Time, peak memory and ceilings of one device. On a CPU the same calls work, without peaks."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GIB = 2**30


class Figures(NamedTuple):
    """What a piece of work took: median seconds of so many rounds, and the peak above what was there before."""

    seconds: float
    peak: int | None  # bytes; None on a CPU
    rounds: int


class Device:
    """The device under test, and the time left to test it.

    Args:
        name: cuda, cuda:1, cpu.
        seconds: all the time there is.
        rounds: of a measurement, at most.
    """

    def __init__(self, name: str, seconds: float, rounds: int = 9):
        self.device, self.end, self.rounds = torch.device(name), time.monotonic() + seconds, rounds
        self.is_cuda = self.device.type == "cuda"

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def about(self) -> str:
        if not self.is_cuda:
            return f"CPU, torch {torch.__version__}"
        card = torch.cuda.get_device_properties(self.device)
        return f"{card.name}, {card.total_memory / GIB:.0f} GiB, torch {torch.__version__}, CUDA {torch.version.cuda}"

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def empty(self) -> None:
        if self.is_cuda:
            torch.cuda.empty_cache()

    def seconds(self, work: Callable) -> float:
        """One turn, from an idle device to an idle device."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def peak(self, work: Callable) -> int | None:
        """Bytes that one turn needs above what is there before it."""
        if not self.is_cuda:
            work()
            return None
        self.empty()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    def measure(self, turns: Mapping[str, Callable], budget: float = 60.0) -> dict[str, Figures | None]:
        """Figures of each turn; None for one that runs out of memory.

        The first round warms up and is where peaks are read. As many more follow as fit into `budget` seconds, at
        least one, in changing order.
        """
        peaks, took = {}, {}
        for name, turn in turns.items():
            start = time.perf_counter()
            try:
                peaks[name] = self.peak(turn)
                took[name] = time.perf_counter() - start
            except torch.OutOfMemoryError:
                self.empty()
        names, times = list(took), {name: [] for name in took}
        rounds = max(1, min(self.rounds, int(min(budget, self.left()) / (sum(took.values()) or 1))))
        for _ in range(rounds):
            for name in names:
                times[name].append(self.seconds(turns[name]))
            names = names[1:] + names[:1]
        return {
            name: Figures(statistics.median(times[name]), peaks[name], rounds) if name in times else None
            for name in turns
        }


def matmul_ceiling(device: Device, size: int, dtype: torch.dtype) -> float:
    """FLOP/s of one large product of random matrices."""
    a, b = (torch.randn(size, size, device=device.device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / device.measure({"": lambda: a @ b}, budget=5)[""].seconds


def attention_ceiling(device: Device, heads: int, tokens: int, head_dim: int, dtype: torch.dtype) -> float:
    """FLOP/s of torch's attention alone."""
    q, k, v = (torch.randn(1, heads, tokens, head_dim, device=device.device, dtype=dtype) for _ in range(3))
    figures = device.measure({"": lambda: F.scaled_dot_product_attention(q, k, v)}, budget=5)[""]
    return 4 * heads * head_dim * tokens**2 / figures.seconds


def copy_ceiling(device: Device, size: int) -> float:
    """Bytes a second from pinned host memory to the device."""
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.is_cuda)
    return size / device.measure({"": lambda: host.to(device.device, non_blocking=True)}, budget=5)[""].seconds


def random_module(
    construct: Callable[[], nn.Module],
    device: torch.device,
    dtype: torch.dtype,
    keep: Callable[[str], bool] = lambda name: False,
) -> nn.Module:
    """A module whose weights were drawn on the device itself; it never exists on the host.

    Args:
        keep: names of the parameters that are float32 whatever `dtype` is.
    """
    with torch.device("meta"):
        module = construct()
    generator = torch.Generator(device).manual_seed(0)
    state = {
        name: _random(name, p.shape, torch.float32 if keep(name) else dtype, device, generator)
        for name, p in module.state_dict().items()
    }
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def _random(name: str, shape: torch.Size, dtype: torch.dtype, device, generator: torch.Generator) -> Tensor:
    """Weights that keep the size of what goes through them; norms near one, biases near zero."""
    noise = torch.randn(shape, dtype=dtype, device=device, generator=generator)
    if "gamma" in name or (len(shape) == 1 and "norm" in name and name.endswith("weight")):
        return noise.mul_(0.02).add_(1)
    return noise.mul_(0.02 if len(shape) == 1 else (shape[0] / shape.numel()) ** 0.5)
