"""The ways of a CPU give the numbers of torch's own layers."""

import pytest
import torch
from torch import nn

from tests.support.goldens import difference
from tests.support.ledger import Ledger
from wan_core.config import VAEConfig
from wan_core.vae import WanVAE
from wan_core.vae.convolution import LARGE, is_direct

CONFIGS = [VAEConfig(dim=8, decoder_dim=8), VAEConfig.wan22(8, 8)]


def twins(config: VAEConfig) -> tuple[WanVAE, WanVAE]:
    """One that is computed directly, and one of torch's layers with the same weights."""
    torch.manual_seed(0)
    direct, plain = WanVAE(config), WanVAE(config, ops=nn)
    for parameter in direct.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    plain.load_state_dict(direct.state_dict())
    return direct.eval().requires_grad_(False), plain.eval().requires_grad_(False)


def latents(config: VAEConfig, frames: int, batch: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, config.z_channels, frames, 144 // config.space_stride, 176 // config.space_stride)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.version)
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_decoding(config, frames):
    direct, plain = twins(config)
    z = latents(config, frames, batch=2)
    assert difference(direct.decode(z), plain.decode(z)) < 1e-5


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.version)
def test_encoding(config):
    direct, plain = twins(config)
    video = torch.rand(2, 3, 9, 144, 176) * 2 - 1
    assert difference(direct.encode(video), plain.encode(video)) < 2e-5


@pytest.mark.parametrize("config, side", [(VAEConfig(dim=4, decoder_dim=4), 272), (VAEConfig.wan22(4, 4), 528)])
def test_where_every_stage_is_large(config, side):
    """As at real sizes; the blocks write over their input, but never over the caller's."""
    direct, plain = twins(config)
    z = torch.randn(1, config.z_channels, 2, side // config.space_stride, side // config.space_stride)
    video = torch.rand(1, 3, 5, side, side) * 2 - 1
    copies = z.clone(), video.clone()
    assert difference(direct.decode(z), plain.decode(z)) < 5e-5
    assert difference(direct.encode(video), plain.encode(video)) < 2e-5
    assert torch.equal(z, copies[0]) and torch.equal(video, copies[1])


def test_bfloat16_is_computed_in_float32():
    direct, plain = twins(CONFIGS[0])
    z, exact = latents(CONFIGS[0], 2), plain.decode(latents(CONFIGS[0], 2))
    ours, theirs = (difference(vae.bfloat16().decode(z), exact) for vae in (direct, plain))
    assert ours < theirs


def test_float64_stays_float64():
    direct, plain = (vae.double() for vae in twins(CONFIGS[0]))
    z = latents(CONFIGS[0], 2)
    assert difference(direct.decode(z), plain.decode(z)) < 1e-7


def test_frames_of_any_number_at_once():
    """An encoder of other groups than four would still be right: one, two and three frames."""
    direct, plain = twins(CONFIGS[0])
    x, caches = torch.randn(1, 8, 6, 40, 32), ({}, {})
    blocks = [vae.encoder.downsamples[0] for vae in (direct, plain)]
    assert is_direct(blocks[0].residual["2"], x) and not is_direct(blocks[1].residual["2"], x)
    for part in x.split([1, 2, 3], dim=2):
        ours, theirs = (block(part.clone(), cache) for block, cache in zip(blocks, caches))
        assert difference(ours, theirs) < 1e-5


@torch.enable_grad()
def test_where_gradients_are_asked_for_the_layers_are_torchs():
    direct, plain = twins(CONFIGS[0])
    x = torch.randn(1, 8, 1, 40, 32, requires_grad=True)
    assert x.shape[3] * x.shape[4] >= LARGE and not is_direct(direct.encoder.downsamples[0].residual["2"], x)
    direct.encoder.downsamples[0](x, {}).sum().backward()
    mine, x.grad = x.grad, None
    plain.encoder.downsamples[0](x, {}).sum().backward()
    assert difference(mine, x.grad) < 1e-4


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.version)
def test_memory_is_below_torchs_own_and_flat(config):
    direct, plain = twins(VAEConfig(config.version, 16, 16, config.z_channels, config.mean, config.std))

    def peak(vae, frames):
        with Ledger() as ledger:
            for _ in vae.decode_chunks(latents(config, frames)):
                pass
        return ledger.peak

    assert peak(direct, 12) == pytest.approx(peak(direct, 3), rel=0.02)
    if config.version == "2.1":
        assert peak(direct, 3) < 0.85 * peak(plain, 3)
