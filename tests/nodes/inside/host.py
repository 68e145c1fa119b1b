"""ComfyUI with the pack loaded, in this process; what the checks share."""

import asyncio
import importlib
import os
import sys
from pathlib import Path

COMFYUI, PACK, MODELS, GOLDEN = sys.argv[1:5]
sys.argv = ["main", "--cpu"]
sys.path.insert(0, COMFYUI)
os.chdir(COMFYUI)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402

import nodes as COMFY_NODES  # noqa: E402

torch.set_num_threads(1)  # enough for tiny models, and steadier beside other work
asyncio.run(COMFY_NODES.load_custom_node(PACK))
pack = PACK.replace(".", "_x_")  # the name that ComfyUI gives a pack


def part(name):
    return importlib.import_module(f"{pack}.{name}")


def difference(a, b):
    return (a.float() - b.float()).abs().max().item()


def pair(family="t2v-a14b"):
    folder = Path(MODELS) / "diffusion_models" / family
    files = [str(folder / f"wan2.2_{word}_noise_14B_fp16.safetensors") for word in ("high", "low")]
    return part("nodes.host.pair").load_pair(*files), files


def texts(width=64):
    torch.manual_seed(1)
    text = torch.zeros(2, 1, 512, width)
    text[0, :, :9], text[1, :, :5] = torch.randn(1, 9, width), torch.randn(1, 5, width)
    return [[text[0], {}]], [[text[1], {}]]


def run(high, low, solver="official unipc", schedule="official", steps=8, cfg=(4.0, 3.0), boundary=0.875, shift=12.0, seed=5, shape=(1, 16, 3, 4, 6), conds=None, watch=None):
    host = part("nodes.host.run")
    guider = host.make_guider(high, low, *(conds or texts()), *cfg, boundary)
    sigmas = host.make_sigmas(high, steps, shift, solver, schedule, 1.0)
    if watch is not None:
        guider.watch = Asked(watch)
    return host.sample(guider, host.make_sampler(solver), sigmas, {"samples": torch.zeros(shape)}, seed)["samples"]


class Asked:
    """Stands where the browser's watch stands, and writes down who is asked."""

    def __init__(self, seen: list):
        self.asked = seen.append

    def started(self, sigmas, plan, latent_format): ...
    def stepped(self, step, x0): ...
    def ended(self): ...


def normalised(samples):
    return comfy.latent_formats.Wan21().process_in(samples)
