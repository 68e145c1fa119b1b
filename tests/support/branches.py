"""Tiny transformers with the branches that few families have."""

from dataclasses import replace

import torch

from wan_core.config import DiTConfig
from wan_core.dit import WanDiT

_PLAIN = DiTConfig(dim=256, ffn_dim=192, heads=2, layers=2, text_dim=64)
_IMAGE = replace(_PLAIN, in_channels=36, image_dim=64)  # CLIP's own is 1280
_5B = replace(_PLAIN, in_channels=148, out_channels=48)

BRANCHES = {
    "bernini-r": _PLAIN,
    "fun-control": replace(_PLAIN, in_channels=52, reference_channels=16),
    "fun-control-5b": replace(_5B, reference_channels=48),
    "fun-inp-5b": replace(_5B, in_channels=100),
    "wan21-i2v": _IMAGE,
    "wan21-flf2v": replace(_IMAGE, image_positions=514),
    "wan21-fun-control": replace(_IMAGE, in_channels=48),
    "wan21-fun-control-1.1": replace(_IMAGE, in_channels=48, reference_channels=16),
}

FRAMES, HEIGHT, WIDTH = 3, 6, 8
TOKENS = FRAMES * HEIGHT * WIDTH // 4


def tiny_dit(family: str, make=WanDiT, **changes) -> WanDiT:
    """A transformer of the family, every parameter random, none of them 0 or 1 throughout."""
    torch.manual_seed(0)
    model = make(replace(BRANCHES[family], **changes)).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.startswith("img_emb"):
            parameter.add_(0.1 * torch.randn_like(parameter))
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def conditions(family, batch=1, seed=1):
    """What a model of the family may be given besides x, t and text."""
    torch.manual_seed(seed)
    config = BRANCHES[family]
    found = {}
    if config.in_channels > config.out_channels:
        found["y"] = torch.randn(batch, config.in_channels - config.out_channels, FRAMES, HEIGHT, WIDTH)
    if config.reference_channels:
        found["reference_latent"] = torch.randn(batch, config.reference_channels, 1, HEIGHT, WIDTH)
    if config.image_dim:
        found["image_embeds"] = torch.randn(batch, config.image_positions or 257, config.image_dim)
    if family == "bernini-r":
        found["context_latents"] = [torch.randn(batch, 16, *size) for size in ((2, 4, 6), (1, 10, 4))]
    return found


def inputs(family, batch=1):
    torch.manual_seed(2)
    config = BRANCHES[family]
    x, t = torch.randn(batch, config.out_channels, FRAMES, HEIGHT, WIDTH), torch.tensor([700.0, 300.0][:batch])
    return x, t, torch.randn(batch, 7, config.text_dim)
