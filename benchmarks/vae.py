"""The VAE against diffusers and native ComfyUI: python benchmarks/vae.py [decode encode] [--rounds 7]

Full width, 128×128 pixels, 9 and 17 frames, equal random weights, float32; decoding in bfloat16 besides. Native ComfyUI is
measured by its own python, where one is found. Ours gives whole clips here, as the rivals do.
"""

import argparse
import subprocess

import measure
import torch
from canvas import find_comfyui, python_of
from device import random_module
from rivals import Codec, comfyui_vae, diffusers_vae, open_comfyui
from torch import Tensor

from wan_core.config import VAEConfig
from wan_core.vae import WanVAE

CONFIGS = {"2.1": VAEConfig(), "2.2": VAEConfig.wan22()}
SIZE, FRAMES = 128, (9, 17)
TARGETS = {"diffusers": 0.75, "ComfyUI": 0.88}  # of decoding, ours over theirs
ENCODE = 0.85  # of the better one


def model(version: str, dtype: torch.dtype = torch.float32) -> WanVAE:
    return random_module(lambda: WanVAE(CONFIGS[version]), torch.device("cpu"), dtype)


def latents(version: str, frames: int) -> Tensor:
    torch.manual_seed(2)
    config = CONFIGS[version]
    return torch.randn(1, config.z_channels, 1 + (frames - 1) // 4, *(SIZE // config.space_stride,) * 2)


def video(frames: int) -> Tensor:
    torch.manual_seed(3)
    return torch.rand(1, 3, frames, SIZE, SIZE) * 2 - 1


def compare(report: measure.Report, rival: str, make: callable, parts: list[str], rounds: int) -> None:
    for version in CONFIGS:
        ours = model(version)
        theirs: Codec = make(ours)
        for frames in FRAMES:
            z, x = latents(version, frames), video(frames)
            if "decode" in parts:
                facts = dict(difference=measure.error(ours.decode(z), theirs.decode(z)))
                ratio = measure.paired(lambda: ours.decode(z), {rival: lambda: theirs.decode(z)}, rounds, warm=1)[rival]
                report.add(f"VAE {version} decode, fp32, {frames} frames", rival, ratio, TARGETS[rival], **facts)
            if "encode" in parts:
                facts = dict(difference=measure.error(ours.encode(x), theirs.encode(x)))
                ratio = measure.paired(lambda: ours.encode(x), {rival: lambda: theirs.encode(x)}, rounds, warm=1)[rival]
                report.add(f"VAE {version} encode, fp32, {frames} frames", rival, ratio, ENCODE, **facts)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the VAE against diffusers and native ComfyUI.")
    parser.add_argument("only", nargs="*", help="decode, encode; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # ComfyUI's folder, where its python runs this
    args = parser.parse_args()
    parts = args.only or ["decode", "encode"]
    if args.inside:
        open_comfyui(args.inside, "--cpu")
    rival, make = ("ComfyUI", comfyui_vae) if args.inside else ("diffusers", diffusers_vae)
    report = measure.Report("vae")
    compare(report, rival, make, parts, args.rounds)
    report.write()
    folder = None if args.inside else find_comfyui()
    if folder:
        subprocess.run([python_of(folder), __file__, *parts, "--inside", str(folder), "--rounds", str(args.rounds)], check=True)


if __name__ == "__main__":
    measure.same_settings()
    main()
