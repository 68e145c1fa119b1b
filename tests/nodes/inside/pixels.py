"""Pixels that are not finite, from the pack's VAE and from the native one."""

from pathlib import Path

import comfy.sd
import comfy.utils
import folder_paths
import torch
from host import comfy_nodes, part
from places import MODELS


def vaes(value):
    """(name, VAE) of ours and of a native one, whose last layer adds `value`."""
    file = str(Path(MODELS) / "vae" / "t2v-a14b" / "wan_2.1_vae.safetensors")
    ours = part("nodes.host.vae").load_vae(file)
    native = comfy.sd.VAE(sd=comfy.utils.load_torch_file(file))
    native.throw_exception_if_invalid()
    for name, vae in (("ours", ours), ("native", native)):
        last = [weight for key, weight in vae.first_stage_model.decoder.named_parameters() if key.endswith("bias")][-1]
        last.data.fill_(value)
        yield name, vae


def outcome(decode):
    try:
        decode()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "a clip"


def infinite_pixels(tmp):
    """Way of decoding → the error it ends in, and what is left in the output folder."""
    host, latents, found = part("nodes.host.vae"), torch.zeros(1, 16, 2, 8, 8), {}
    before, output = folder_paths.get_output_directory(), Path(tmp) / "output"
    folder_paths.set_output_directory(str(output))
    for value in (float("inf"), -float("inf"), float("nan")):
        for name, vae in vaes(value):
            ways = {
                "whole": lambda vae=vae: host.decode(vae, latents),
                "in tiles": lambda vae=vae: host.decode(vae, latents, 32, 8),
                "to a file": lambda vae=vae: part("nodes.host.video").save_clips(vae, latents, 16, "clip", None, None),
            }
            if name == "ours":
                ways["by the native node"] = lambda vae=vae: comfy_nodes.VAEDecode().decode(vae, {"samples": latents})
            found |= {f"{name} {way} {value}": outcome(decode) for way, decode in ways.items()}
    folder_paths.set_output_directory(before)
    return found | {"left": [file.name for file in output.rglob("*") if file.is_file()]}


def finite_pixels(tmp):
    """A checked native VAE is the native VAE: largest difference, whole and in tiles."""
    host, latents = part("nodes.host.vae"), torch.randn(1, 16, 2, 8, 8)
    _, native = list(vaes(0.0))[1]
    whole = native.decode(latents).reshape(5, 64, 64, 3)
    tiled = native.decode_tiled(latents, tile_x=4, tile_y=4, overlap=1, tile_t=9999).reshape(5, 64, 64, 3)
    return [
        (host.decode(native, latents) - whole).abs().max().item(),
        (host.decode(native, latents, 32, 8) - tiled).abs().max().item(),
        float(whole.std()),
    ]
