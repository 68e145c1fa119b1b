import pytest
import torch

from tests.support.ledger import Ledger
from wan_core.config import DiTConfig, VAEConfig
from wan_core.dit import WanDiT
from wan_core.memory.estimate import decoding_bytes, sampling_bytes
from wan_core.vae import WanVAE


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim, ffn", [(512, 1382), (768, 3584)])
@pytest.mark.parametrize("kind", ["t2v", "ti2v", "vace"])
def test_sampling_is_estimated_within_a_fifth(dtype, dim, ffn, kind):
    vace_layers = (0, 2) if kind == "vace" else ()
    config = DiTConfig(dim=dim, ffn_dim=ffn, heads=dim // 128, layers=4, text_dim=64, vace_layers=vace_layers)
    model, tokens = WanDiT(config).to(dtype), 5 * 20 * 20  # as an accelerator runs it: a CPU's blocks need less
    t = torch.tensor([500])
    if kind == "ti2v":
        t = torch.full((1, tokens), 500)
        t[:, :400] = 0
    vace = torch.randn(1, 96, 5, 40, 40) if kind == "vace" else None
    with Ledger() as ledger:
        model(torch.randn(1, 16, 5, 40, 40), t, torch.randn(1, 20, 64), vace=vace)
    assert sampling_bytes(config, tokens, dtype, kind == "ti2v") == pytest.approx(ledger.peak, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("config", [VAEConfig("2.1", 16, 16), VAEConfig.wan22(16, 16)], ids=lambda c: c.version)
def test_decoding_is_estimated_within_a_fifth(config):
    vae = WanVAE(config)  # as an accelerator runs it
    latents = torch.randn(1, config.z_channels, 3, 256 // config.space_stride, 256 // config.space_stride)
    with Ledger() as ledger:
        for _ in vae.decode_chunks(latents):
            pass
    assert decoding_bytes(config, 256, 256) == pytest.approx(ledger.peak, rel=0.2)
