"""Layers of the VAE on a CPU give the numbers of the plain ones."""

import pytest
import torch
from torch import nn

from tests.support.goldens import difference
from tests.support.ledger import Ledger
from wan_core.config import VAEConfig
from wan_core.cpu import convolution, make_vae
from wan_core.cpu import vae as cpu_vae
from wan_core.cpu.vae import LARGE, pays
from wan_core.vae import WanVAE

CONFIGS = [VAEConfig(dim=8, decoder_dim=8), VAEConfig.wan22(8, 8)]


def twins(config: VAEConfig) -> tuple[WanVAE, WanVAE]:
    """One for a CPU, and the plain one with the same weights."""
    torch.manual_seed(0)
    fast, plain = make_vae(config), WanVAE(config)
    for parameter in fast.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    plain.load_state_dict(fast.state_dict())
    return fast.eval().requires_grad_(False), plain.eval().requires_grad_(False)


def latents(config: VAEConfig, frames: int, batch: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, config.z_channels, frames, 144 // config.space_stride, 176 // config.space_stride)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.version)
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_decoding(config, frames):
    fast, plain = twins(config)
    z = latents(config, frames, batch=2)
    assert difference(fast.decode(z), plain.decode(z)) < 1e-5


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.version)
def test_encoding(config):
    fast, plain = twins(config)
    video = torch.rand(2, 3, 9, 144, 176) * 2 - 1
    assert difference(fast.encode(video), plain.encode(video)) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("config, side", [(VAEConfig(dim=4, decoder_dim=4), 272), (VAEConfig.wan22(4, 4), 528)])
def test_where_every_stage_is_large(config, side):
    """As at real sizes; nothing is written into what the caller gave."""
    fast, plain = twins(config)
    z = torch.randn(1, config.z_channels, 2, side // config.space_stride, side // config.space_stride)
    video = torch.rand(1, 3, 5, side, side) * 2 - 1
    copies = z.clone(), video.clone()
    assert difference(fast.decode(z), plain.decode(z)) < 5e-5
    assert difference(fast.encode(video), plain.encode(video)) < 2e-5
    assert torch.equal(z, copies[0]) and torch.equal(video, copies[1])


def test_bfloat16_is_computed_in_float32():
    fast, plain = twins(CONFIGS[0])
    z, exact = latents(CONFIGS[0], 2), plain.decode(latents(CONFIGS[0], 2))
    ours, theirs = (difference(vae.bfloat16().decode(z), exact) for vae in (fast, plain))
    assert ours < theirs


def test_float64_stays_float64():
    fast, plain = (vae.double() for vae in twins(CONFIGS[0]))
    z = latents(CONFIGS[0], 2)
    assert difference(fast.decode(z), plain.decode(z)) < 1e-7


def test_frames_of_any_number_at_once():
    """An encoder of other groups than four would still be right: one, two and three frames."""
    fast, plain = twins(CONFIGS[0])
    x, caches = torch.randn(1, 8, 6, 40, 32), ({}, {})
    both = [vae.encoder.downsamples[0] for vae in (fast, plain)]
    assert pays(x, both[0].residual["2"], both[0].residual["6"])
    for part in x.split([1, 2, 3], dim=2):
        ours, theirs = (block(part, cache) for block, cache in zip(both, caches, strict=True))
        assert difference(ours, theirs) < 1e-5


@torch.enable_grad()
def test_where_gradients_are_asked_for_the_layers_are_the_plain_ones():
    fast, plain = twins(CONFIGS[0])
    x = torch.randn(1, 8, 1, 40, 32, requires_grad=True)
    assert x.shape[3] * x.shape[4] >= LARGE and not pays(x, fast.encoder.downsamples[0].residual["2"])
    fast.encoder.downsamples[0](x, {}).sum().backward()
    mine, x.grad = x.grad, None
    plain.encoder.downsamples[0](x, {}).sum().backward()
    assert difference(mine, x.grad) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.version)
def test_memory_is_below_the_plain_ones_and_flat(config):
    fast, plain = twins(VAEConfig(config.version, 16, 16, config.z_channels, config.mean, config.std))

    def peak(vae, frames):
        with Ledger() as ledger:
            for _ in vae.decode_chunks(latents(config, frames)):
                pass
        return ledger.peak

    assert peak(fast, 12) == pytest.approx(peak(fast, 3), rel=0.02)
    if config.version == "2.1":
        assert peak(fast, 3) < 0.85 * peak(plain, 3)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["for a CPU", "plain"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.version)
def test_no_layer_writes_into_its_input(config, which):
    """In the first chunk and in a later one."""
    vae, before, checked = twins(config)[which], {}, set()

    def remember(module, args):
        before[module] = args[0]._version, args[0].clone()

    def compare(module, args, out):
        version, values = before[module]
        assert args[0]._version == version and torch.equal(args[0], values), type(module)
        checked.add(module)

    blocks = [module for module in vae.modules() if hasattr(module, "residual") or hasattr(module, "resample")]
    for module in (*blocks, vae.encoder.head, vae.decoder.head):
        module.register_forward_pre_hook(remember)
        module.register_forward_hook(compare)
    vae.decode(latents(config, 3))
    vae.encode(torch.rand(1, 3, 5, 144, 176) * 2 - 1)
    assert checked >= set(blocks)


def test_a_wide_convolution_takes_its_filters_some_at_a_time(monkeypatch):
    monkeypatch.setattr(cpu_vae, "WIDE", 0)
    monkeypatch.setattr(convolution, "FILTERS", 3)
    fast, plain = twins(CONFIGS[0])
    calls, split = [], cpu_vae.split_conv3d
    monkeypatch.setattr(cpu_vae, "split_conv3d", lambda *args: (calls.append(args), split(*args))[1])
    z = latents(CONFIGS[0], 3)[..., :4, :4]
    assert difference(fast.decode(z), plain.decode(z)) < 1e-5
    assert calls
