"""The part of the GPU benchmark that moves experts onto the device."""

import gc
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench, dit_inputs, random_dit
from benchmarks.gpu.device import Device
from wan_core.checkpoints import load_dit
from wan_core.config import DiTConfig
from wan_core.dit import WanDiT
from wan_core.memory import ModelOffloader


def switch(bench: Bench) -> None:
    """The other expert onto the device: from pinned memory, from a file that is on disk, and from one that was
    prefetched.
    """
    clip, device = bench.clips[0], bench.device
    config, given = clip.preset.dit, dit_inputs(clip, device)
    model = random_dit(config, device)
    run, size = model.session(), sum(p.nbytes for p in model.parameters())
    step = 2 * device.measure({"": lambda: run(*given)}, budget=15)[""].seconds  # with guidance

    def add(what: str, seconds: float, **figures) -> None:
        figures |= {"GB/s": size / seconds / 1e9, "of a guided step": seconds / step}
        bench.report.add(f"expert switch, {what}", "ours", seconds, measure="seconds", **figures)

    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        file = None
        if shutil.disk_usage(folder).free < 1.05 * size:
            print(json.dumps({"left out": "expert switch from a file", "needs GB of disk": size / 1e9}), flush=True)
        elif bench.fits("expert switch from a file", 6 * size / 1e9):
            file = write_expert(model, Path(folder) / "expert.safetensors")
        high, low = (pinned(model, device) for _ in range(2))
        del model, run
        bench.close()
        offloader = ModelOffloader(device.device, exclusive=True)
        peak = device.peak(lambda: (offloader.load(high), offloader.load(low)))
        seconds = min(device.seconds(lambda e=expert: offloader.load(e)) for expert in (high, low, high))
        add("pinned memory", seconds, **({} if peak is None else {"peak over one expert": peak / size}))
        if file is not None:
            cold = from_file(device, offloader, file, config, high)
            add("file on disk", cold)
            run = high.session()

            def steps() -> None:
                end = time.monotonic() + 1.5 * cold + 1
                while time.monotonic() < end:
                    device.seconds(lambda: run(*given))

            add("file on disk, prefetched", from_file(device, offloader, file, config, high, steps))
        offloader.end_run()


def pinned(model: WanDiT, device: Device) -> WanDiT:
    """A copy of the model in page-locked host memory, in one piece: torch rounds every piece up to a power of two."""
    state = model.state_dict()
    buffer = torch.empty(
        sum(-(-p.nbytes // 64) * 64 for p in state.values()), dtype=torch.uint8, pin_memory=device.is_cuda
    )
    with torch.device("meta"):
        copied, start = WanDiT(model.config), 0
    for name, p in state.items():
        state[name] = buffer[start : start + p.nbytes].view(p.dtype).view(p.shape).copy_(p)
        start += -(-p.nbytes // 64) * 64
    copied.load_state_dict(state, assign=True)
    return copied.eval().requires_grad_(False)


def write_expert(model: WanDiT, file: Path) -> Path:
    from safetensors.torch import save_file

    save_file(model.state_dict(), file)
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
    return file


def from_file(
    device: Device,
    offloader: ModelOffloader,
    file: Path,
    config: DiTConfig,
    high: WanDiT,
    meanwhile: Callable | None = None,
) -> float:
    """Seconds to replace `high` by an expert whose file is on disk alone, or is prefetched while `meanwhile` runs."""
    gc.collect()
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    low = load_dit(file, config)  # mapped: reads the header alone
    offloader.load(high)
    if meanwhile is not None:
        offloader.prefetch(low)
        meanwhile()
        offloader.stop_prefetch()
    seconds = device.seconds(lambda: offloader.load(low))
    offloader.offload()
    return seconds
