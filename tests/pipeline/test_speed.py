"""Attention backends and compiled blocks: chosen by name, stand-ins for what is not installed here."""

import logging
import sys
from types import ModuleType

import pytest
import torch

import wan_core.attention
from tests.support.small_clips import SMALL
from wan_core import WanPipeline
from wan_core.errors import InputError, NumericalError
from wan_core.ops import sdpa


@pytest.fixture
def installed(monkeypatch):
    """Packages that attend as sdpa does, or with NaN, in place of the real ones and of CUDA."""
    calls = []

    def install(broken=False):
        def attend(q, k, v, tensor_layout="NHD"):
            calls.append(q.shape)
            return sdpa(q, k, v) * (float("nan") if broken else 1)

        for package, name in (("flash_attn", "flash_attn_func"), ("sageattention", "sageattn")):
            module = ModuleType(package)
            setattr(module, name, attend)
            monkeypatch.setitem(sys.modules, package, module)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(wan_core.attention, "_suits", lambda q, bias: bias is None)
        return calls

    return install


def open_with(folder, name):
    return WanPipeline.from_pretrained(folder, device="cpu", attention=name)


@pytest.mark.parametrize("name", ["flash", "sage"])
def test_a_backend_is_used_where_it_is_installed(official_folder, pipe, installed, name):
    calls = installed()
    out = open_with(official_folder(), name)("a cat", **SMALL)
    assert calls and torch.allclose(out.latents, pipe("a cat", **SMALL).latents, atol=1e-5)


def test_auto_takes_flash_and_never_sage(official_folder, installed, monkeypatch):
    installed()
    assert wan_core.attention.get_backend("auto").__name__ == "flash"
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert wan_core.attention.get_backend("auto") is sdpa


@pytest.mark.parametrize("name", ["flash", "sage", "ring", 3])
def test_a_backend_that_cannot_be_used_is_refused(official_folder, name):
    with pytest.raises(InputError, match="attention"):
        open_with(official_folder(), name)


@pytest.mark.parametrize("offload", [False, True])
def test_a_backend_that_returns_nan_is_replaced_with_one_warning_an_expert(
    official_folder, pipe, installed, caplog, offload
):
    installed(broken=True)
    broken = open_with(official_folder(), "flash")
    if offload:
        broken.enable_model_cpu_offload()
    with caplog.at_level(logging.WARNING):
        out, again = (broken("a cat", **SMALL).latents for _ in range(2))
    assert torch.equal(out, pipe("a cat", **SMALL).latents) and torch.equal(out, again)
    assert [record.message for record in caplog.records] == [
        "flash attention returned NaN or infinity; sdpa from here on"
    ] * 2


def test_weights_that_give_nan_with_sdpa_too_are_an_error(official_folder, installed):
    installed()
    damaged = open_with(official_folder(), "flash")
    damaged.high.head.head.bias = torch.nn.Parameter(torch.full_like(damaged.high.head.head.bias, float("nan")))
    with pytest.raises(NumericalError, match="step 1 of 4"):
        damaged("a cat", **SMALL)


@pytest.mark.parametrize("name", ["t2v-a14b", "vace-a14b"])
def test_compiling_keeps_names_and_numbers(official_folder, open_pipe, name):
    compiled, plain = WanPipeline.from_pretrained(official_folder(name)), open_pipe(name)
    compiled.compile(backend="eager")
    assert list(compiled.high.state_dict()) == list(plain.high.state_dict())
    assert torch.allclose(compiled("a cat", **SMALL).latents, plain("a cat", **SMALL).latents, atol=1e-5)
    compiled.enable_model_cpu_offload()
    assert torch.allclose(compiled("a cat", **SMALL).latents, plain("a cat", **SMALL).latents, atol=1e-5)
