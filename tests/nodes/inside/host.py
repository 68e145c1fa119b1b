"""ComfyUI with the pack loaded, in this process; what the checks share."""

import asyncio
import importlib
from pathlib import Path

import comfy.latent_formats
import torch
from places import MODELS, PACK

import nodes as comfy_nodes

torch.set_num_threads(1)  # enough for tiny models, and steadier beside other work
asyncio.run(comfy_nodes.load_custom_node(PACK))
pack = PACK.replace(".", "_x_")  # the name that ComfyUI gives a pack


def part(name):
    return importlib.import_module(f"{pack}.{name}")


def difference(a, b):
    return (a.float() - b.float()).abs().max().item()


def pair(family="t2v-a14b"):
    folder = Path(MODELS) / "diffusion_models" / family
    files = [str(folder / f"wan2.2_{word}_noise_14B_fp16.safetensors") for word in ("high", "low")]
    return part("nodes.host.loading").load_pair(*files), files


def texts(width=64):
    torch.manual_seed(1)
    text = torch.zeros(2, 1, 512, width)
    text[0, :, :9], text[1, :, :5] = torch.randn(1, 9, width), torch.randn(1, 5, width)
    return [[text[0], {}]], [[text[1], {}]]


def run(
    high,
    low,
    solver="official unipc",
    schedule="official",
    steps=8,
    cfg=(4.0, 3.0),
    boundary=0.875,
    shift=12.0,
    seed=5,
    shape=(1, 16, 3, 4, 6),
    conds=None,
    watch=None,
    sampler=None,
):
    host = part("nodes.host.sampling")
    guider = host.make_guider(high, low, *(conds or texts()), *cfg, boundary, shift=shift)
    sigmas = host.make_sigmas(high, steps, shift, solver, schedule, 1.0)
    if watch is not None:
        guider.progress = written_down(watch)
    sampler = sampler or host.make_sampler(solver)
    return host.sample(guider, sampler, sigmas, {"samples": torch.zeros(shape)}, seed)["samples"]


def written_down(experts: list):
    """A guider's progress that appends every expert that is evaluated to the list."""
    progress = part("nodes.host.guider").Progress()
    progress.on_expert = experts.append
    return progress


def normalised(samples):
    return comfy.latent_formats.Wan21().process_in(samples)
