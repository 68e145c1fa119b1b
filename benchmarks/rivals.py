"""diffusers and native ComfyUI on our weights: the same tensors, not copies, wherever they take the same dtype.

Each maker returns a call with our arguments. diffusers is imported where it is installed. ComfyUI's modules are there
once `open_comfyui` has been called in ComfyUI's python.
"""

import importlib.util
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wan_core.checkpoints.key_maps import to_official
from wan_core.dit import WanDiT
from wan_core.vae import WanVAE


def has_diffusers() -> bool:
    return importlib.util.find_spec("diffusers") is not None and importlib.util.find_spec("accelerate") is not None


def open_comfyui(folder: str, *options: str) -> None:
    """Make ComfyUI's packages importable, under these command-line options of it."""
    sys.argv = ["main.py", *options]
    sys.path.insert(0, folder)
    from comfy.options import enable_args_parsing

    enable_args_parsing()


def share(
    theirs: torch.nn.Module, kind: str, ours: torch.nn.Module, dtype_of: Callable[[str, Tensor], torch.dtype]
) -> None:
    """Give a foreign module our tensors, through the name table; those of another dtype are cast."""
    state, names = ours.state_dict(), to_official(kind, theirs.state_dict(), type(theirs).__name__)
    assert set(names) == set(state), "the name table and the models disagree"
    theirs.load_state_dict(
        {name: state[own].to(dtype_of(name, state[own])) for own, name in names.items()}, assign=True
    )
    theirs.eval().requires_grad_(False)


def diffusers_dit(ours: WanDiT) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(x, t, text) → velocity, the prompt padded to what it computes with."""
    from accelerate import init_empty_weights
    from diffusers import WanTransformer3DModel

    c = ours.config
    with init_empty_weights():
        theirs = WanTransformer3DModel(
            patch_size=c.patch,
            num_attention_heads=c.heads,
            attention_head_dim=c.head_dim,
            in_channels=c.in_channels,
            out_channels=c.out_channels,
            text_dim=c.text_dim,
            freq_dim=c.freq_dim,
            ffn_dim=c.ffn_dim,
            num_layers=c.layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            eps=c.eps,
        )
    in_float32 = set(theirs._keep_in_fp32_modules)  # as its from_pretrained leaves them
    share(
        theirs, "dit", ours, lambda name, t: torch.float32 if in_float32 & set(name.split(".")) else ours.compute_dtype
    )
    theirs.to(ours.head.head.weight.device)  # its rotary tables
    return lambda x, t, text: theirs(x.to(ours.compute_dtype), t, padded(text, c.text_len), return_dict=False)[0]


def comfyui_dit(ours: WanDiT) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(x, t, text) → velocity, the prompt padded to what it computes with."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    c = ours.config
    with torch.device("meta"):
        theirs = WanModel(
            dim=c.dim,
            ffn_dim=c.ffn_dim,
            num_heads=c.heads,
            num_layers=c.layers,
            in_dim=c.in_channels,
            out_dim=c.out_channels,
            text_dim=c.text_dim,
            freq_dim=c.freq_dim,
            dtype=ours.compute_dtype,
            operations=comfy.ops.disable_weight_init,
        )
    declared = theirs.state_dict()
    share(theirs, "dit", ours, lambda name, t: declared[name].dtype)
    return lambda x, t, text: theirs(x.to(ours.compute_dtype), t, padded(text, c.text_len))


class Codec(NamedTuple):
    """A rival's VAE."""

    encode: Callable[[Tensor], Tensor]  # video in [-1, 1] → normalised latents
    decode: Callable[[Tensor], Tensor]  # normalised latents → video


def diffusers_vae(ours: WanVAE) -> Codec:
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKLWan

    c = ours.config
    newer = {}
    if c.version == "2.2":
        newer = dict(
            decoder_base_dim=c.decoder_dim,
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
        )
    with init_empty_weights():
        theirs = AutoencoderKLWan(base_dim=c.dim, z_dim=c.z_channels, latents_mean=c.mean, latents_std=c.std, **newer)
    share(theirs, "vae", ours, lambda name, t: ours.dtype)
    return Codec(
        lambda video: normalised(theirs.encode(video.to(ours.dtype)).latent_dist.mode(), ours),
        lambda z: theirs.decode(denormalised(z, ours), return_dict=False)[0],
    )


def comfyui_vae(ours: WanVAE) -> Codec:
    import comfy.ldm.wan.vae
    import comfy.ldm.wan.vae2_2

    c, sizes = (
        ours.config,
        dict(dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True]),
    )
    with torch.device("meta"):
        if c.version == "2.1":
            theirs = comfy.ldm.wan.vae.WanVAE(dim=c.dim, z_dim=c.z_channels, image_channels=3, **sizes)
        else:
            theirs = comfy.ldm.wan.vae2_2.WanVAE(dim=c.dim, dec_dim=c.decoder_dim, z_dim=c.z_channels, **sizes)
    share(theirs, "vae", ours, lambda name, t: ours.dtype)
    return Codec(
        lambda video: normalised(theirs.encode(video.to(ours.dtype)), ours),
        lambda z: theirs.decode(denormalised(z, ours)).clamp(-1, 1),
    )


def padded(text: Tensor, length: int) -> Tensor:
    return F.pad(text, (0, 0, 0, length - text.shape[1]))


def normalised(z: Tensor, vae: WanVAE) -> Tensor:
    """What the rivals' encoders give, in the scale of ours."""
    mean, std = statistics(z, vae)
    return (z.float() - mean) / std


def denormalised(z: Tensor, vae: WanVAE) -> Tensor:
    """What the rivals' decoders take: latents in their own scale."""
    mean, std = statistics(z, vae)
    return (z * std + mean).to(vae.dtype)


def statistics(z: Tensor, vae: WanVAE) -> list[Tensor]:
    return [torch.tensor(values, device=z.device).view(1, -1, 1, 1, 1) for values in (vae.config.mean, vae.config.std)]
