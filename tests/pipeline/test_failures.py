"""What goes wrong in the middle leaves nothing behind."""

import contextlib

import numpy as np
import pytest
import torch

from tests.support.ledger import Ledger
from tests.support.small_clips import SMALL, picture
from wan_core import WanPipeline
from wan_core.errors import NumericalError, OutOfMemory
from wan_core.pipeline import Options, Request


@pytest.mark.parametrize(
    "name, inputs",
    [
        ("t2v-a14b", {}),
        ("i2v-a14b", {"image": picture(), "last_image": picture()}),
        ("vace-a14b", {"video": np.zeros((5, 32, 48, 3), np.uint8), "mask": picture()}),
    ],
)
def test_out_of_memory_is_said_and_nothing_is_kept(official_folder, name, inputs):
    pipe = WanPipeline.from_pretrained(official_folder(name))
    pipe.enable_model_cpu_offload()
    block, calls = pipe.low.blocks[1], []

    def fail(module, args):
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    handle = block.register_forward_pre_hook(fail)
    with Ledger() as ledger:
        with pytest.raises(OutOfMemory, match=r"Tried to allocate 20 GiB.*enable_model_cpu_offload") as caught:
            pipe("a cat", **inputs, **SMALL)
        assert calls and ledger.live == 0, "tensors of the failed run are still alive"
    assert caught.value is not None and pipe.offloader.resident == ()
    handle.remove()
    assert torch.isfinite(pipe("a cat", **inputs, **SMALL).latents).all()


def test_out_of_memory_while_decoding_keeps_the_latents(pipe, tmp_path):
    out = pipe("a cat", **SMALL)

    def fail(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    handle = pipe.vae.decoder.register_forward_pre_hook(fail)
    for use in (lambda: out.save(tmp_path / "clip.mp4"), lambda: out.frames[0], lambda: list(out.chunks())):
        with pytest.raises(OutOfMemory, match="20 GiB"):
            use()
    handle.remove()
    assert not list(tmp_path.iterdir())
    assert out.frames[0].shape == (5, 32, 48, 3)


def test_interrupt_in_either_expert_leaves_nothing(official_folder):
    pipe = WanPipeline.from_pretrained(official_folder())
    pipe.enable_model_cpu_offload()
    for stop in (0, 3):

        def callback(i, t, x, x0, stop=stop):
            if i == stop:
                raise KeyboardInterrupt

        with Ledger() as ledger, contextlib.suppress(KeyboardInterrupt):
            pipe("a cat", callback=callback, **SMALL)
        assert ledger.live == 0 and pipe.offloader.resident == ()


def test_nan_names_the_step(official_folder):
    pipe = WanPipeline.from_pretrained(official_folder())
    pipe.low.head.head.bias.data = torch.full_like(pipe.low.head.head.bias, float("nan"))
    numbers = SMALL | {"num_inference_steps": 10}
    first_low = Request.resolve(pipe.preset, Options("a cat", **numbers)).plan().index("low") + 1
    assert first_low > 1
    with pytest.raises(NumericalError, match=f"step {first_low} of 10"):
        pipe("a cat", **numbers)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_from_the_vae_are_no_clip(official_folder, tmp_path, value):
    pipe = WanPipeline.from_pretrained(official_folder())
    last = [weight for name, weight in pipe.vae.decoder.named_parameters() if name.endswith("bias")][-1]
    last.data = torch.full_like(last, value)
    out = pipe("a cat", **SMALL)
    with pytest.raises(NumericalError, match="VAE"):
        out.frames[0]
    with pytest.raises(NumericalError, match="VAE"):
        out.save(tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())
