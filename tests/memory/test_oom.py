"""Out of memory at every door of the library: one type of error, nothing kept, and the next try works."""

import contextlib
import errno
import gc
import mmap

import pytest
import torch
from torch import nn

from tests.support.ledger import Ledger
from tests.support.shortage import ERRORS, shortages
from tests.support.small_clips import SMALL
from wan_core import WanPipeline
from wan_core.checkpoints import load_vae
from wan_core.devices import usable_device
from wan_core.errors import CheckpointError, OutOfMemory
from wan_core.memory import ModelOffloader, typed_oom
from wan_core.memory.oom import is_out_of_memory


@pytest.fixture
def pipe(official_folder):
    return WanPipeline.from_pretrained(official_folder())


@pytest.mark.parametrize(
    "error, expected",
    [
        *((make(), True) for make in ERRORS),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("unable to mmap 9 bytes from file </x>: Cannot allocate memory (12)"), True),
        (RuntimeError("could not create a primitive descriptor for a matmul primitive"), False),
        (RuntimeError("shape mismatch"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
    ids=repr,
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    "error, message",
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
            "on the device: .*enable_model_cpu_off",
        ),
        (MemoryError(), "on the host: MemoryError. Close other programs"),
        (RuntimeError("could not create a primitive\nmore"), "on the host: could not create a primitive. Close"),
    ],
)
def test_it_says_whose_memory(error, message):
    with pytest.raises(OutOfMemory, match=message) as caught, typed_oom():
        raise error
    assert "\n" not in str(caught.value)


def test_an_error_that_wraps_a_shortage_is_one():
    with pytest.raises(OutOfMemory, match="Cannot allocate"), typed_oom():
        try:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        except OSError as error:
            raise CheckpointError("a file that cannot be mapped") from error


def test_the_error_holds_nothing_of_what_failed_through_any_number_of_doors():
    @typed_oom()
    def inner():
        held = torch.ones(1000)
        raise MemoryError(held.shape)

    @typed_oom()
    def outer():
        held = torch.ones(1000)
        inner()
        return held

    with Ledger() as ledger:
        with pytest.raises(OutOfMemory) as caught:
            outer()
        assert ledger.live == 0 and ledger.peak == 8000
    assert caught.value is not None


def test_loading_at_every_allocation(official_folder):
    folder = official_folder()
    failed = 0
    for shortage in shortages(lambda: WanPipeline.from_pretrained(folder), most=100, allocating=True):
        with pytest.raises(OutOfMemory), shortage:
            WanPipeline.from_pretrained(folder)
        failed += 1
    assert failed > 30
    again, first = WanPipeline.from_pretrained(folder), WanPipeline.from_pretrained(folder)
    assert torch.equal(again("a cat", **SMALL).latents, first("a cat", **SMALL).latents)


def test_files_that_no_memory_is_left_to_map(official_folder, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", fail)
        for load in (WanPipeline.from_pretrained, lambda folder: load_vae(folder / "Wan2.1_VAE.pth")):
            with pytest.raises(OutOfMemory, match="Cannot allocate memory"):
                load(official_folder())
    assert load_vae(official_folder() / "Wan2.1_VAE.pth")


def test_a_device_without_memory_is_no_unknown_device(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(OutOfMemory), typed_oom():
        usable_device("cpu")


def test_decoding_and_saving_with_the_vaes_way_to_the_device(pipe, tmp_path):
    pipe.enable_model_cpu_offload()
    out = pipe("a cat", **SMALL)
    before = out.decode().copy()

    def frames():
        out._decoded.clear()
        return out.frames[0]

    def save():
        return out.save(tmp_path / "clip.mp4")

    for use, most in ((frames, 8), (save, 2)):
        for shortage in shortages(use, most):
            with pytest.raises(OutOfMemory) as caught, shortage, Ledger() as ledger:
                use()
            gc.collect()
            assert ledger.live == 0, "decoded frames are still alive"
            assert caught.value is not None and pipe.offloader.resident == ()
        use()
        assert (frames() == before).all()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_load_that_fails_half_way_is_undone(monkeypatch):
    offloader, module = ModelOffloader("meta"), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assign, calls = nn.Linear._load_from_state_dict, []

    def fail_once(*args):
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError
        assign(*args)

    monkeypatch.setattr(nn.Linear, "_load_from_state_dict", fail_once)
    with pytest.raises(MemoryError):
        offloader.load(module)
    assert offloader.resident == () and {p.device.type for p in module.parameters()} == {"cpu"}
    assert {p.device.type for p in offloader.load(module).parameters()} == {"meta"}


def test_a_lora_is_applied_whole_or_not_at_all(pipe, tmp_path):
    layers = ("blocks.0.self_attn.q", "blocks.1.self_attn.k", "head.head")
    shapes = {name: pipe.high.get_parameter(f"{name}.weight").shape for name in layers}
    state = {
        f"diffusion_model.{name}.lora_{part}.weight": torch.ones(size)
        for name, (rows, columns) in shapes.items()
        for part, size in (("down", (2, columns)), ("up", (rows, 2)))
    }
    torch.save(state, tmp_path / "style.pt")
    before = pipe("a cat", **SMALL).latents

    def load():
        pipe.load_lora(tmp_path / "style.pt")
        pipe.unload_loras()

    for shortage in list(shortages(load, most=10, allocating=True)):
        with contextlib.suppress(OutOfMemory), shortage:
            load()
        assert not pipe._loras.notes and not any(hasattr(m, "lora") or m._forward_hooks for m in pipe.high.modules())
    assert torch.equal(pipe("a cat", **SMALL).latents, before)
