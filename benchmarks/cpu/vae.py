"""The VAE against diffusers and native ComfyUI: python -m benchmarks.cpu.vae [decode encode memory mp4] [--rounds 3]

Full width, 128×128 pixels, 9 and 17 frames, equal random weights, float32. Native ComfyUI is measured by its own
python, where one is found. Ours gives whole clips here, as the rivals do.

Memory: how far a fresh process grows in its first decode, beyond the video it returns, which is what other programs
see. Beside it, the peak of live tensors, which leaves out what libraries and the allocator take. mp4: wall time, since
ffmpeg works beside us.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.gpu.device import random_module
from benchmarks.rivals import Codec, comfyui_vae, diffusers_vae, open_comfyui
from scripts.canvas import find_comfyui, python_of
from tests.support.ledger import Ledger
from wan_core.config import VAEConfig
from wan_core.cpu import make_vae
from wan_core.vae import WanVAE

CONFIGS = {"2.1": VAEConfig(), "2.2": VAEConfig.wan22()}
SIZE, FRAMES = 128, (9, 17)
DECODE = {"diffusers": 0.75, "ComfyUI": 0.88}  # targets, ours over theirs
ENCODE, MEMORY, MP4 = 0.85, 0.75, 1.10
LONG = 33  # frames; memory is taken of these and of FRAMES[0]


def model(version: str, dtype: torch.dtype = torch.float32) -> WanVAE:
    return random_module(lambda: make_vae(CONFIGS[version]), torch.device("cpu"), dtype)


def latents(version: str, frames: int) -> Tensor:
    torch.manual_seed(2)
    config = CONFIGS[version]
    return torch.randn(1, config.z_channels, 1 + (frames - 1) // 4, *(SIZE // config.space_stride,) * 2)


def video(frames: int) -> Tensor:
    torch.manual_seed(3)
    return torch.rand(1, 3, frames, SIZE, SIZE) * 2 - 1


def speed(report: measure.Report, rival: str, parts: list[str], rounds: int) -> None:
    """Decoding and encoding, and how far the results are from each other."""
    for version in CONFIGS:
        ours = model(version)
        theirs = RIVALS[rival](ours)
        for part, target in (("decode", DECODE[rival]), ("encode", ENCODE)):
            if part not in parts:
                continue
            for frames in FRAMES:
                given = latents(version, frames) if part == "decode" else video(frames)
                turns = [lambda vae=vae: getattr(vae, part)(given) for vae in (ours, theirs)]
                made = [turn() for turn in turns]
                ratio = measure.paired(turns[0], {rival: turns[1]}, rounds, warm=0)[rival]
                report.add(
                    f"VAE {version} {part}, fp32, {frames} frames",
                    rival,
                    ratio,
                    target,
                    difference=measure.error(*made),
                )


def accuracy(report: measure.Report) -> None:
    """What is lost against float64, in float32 and bfloat16; diffusers in float32 beside it. Version 2.1, 5 frames."""
    z = latents("2.1", 5)[..., :8, :8]
    exact = model("2.1").double().decode(z)
    single, half = model("2.1"), model("2.1", torch.bfloat16)
    figures = {"diffusers_in_float32": measure.error(diffusers_vae(single).decode(z), exact)}
    figures["ours_in_bfloat16"] = measure.error(half.decode(z), exact)
    report.add(
        "VAE 2.1 decode, fp32, 5 frames", "float64", measure.error(single.decode(z), exact), measure="error", **figures
    )


def peak(implementation: str, version: str, frames: int) -> dict[str, int]:
    """Bytes that the first real decode of this process needs beyond its result, and the peak of live tensors in another
    one.
    """

    def status(field: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024

    ours, z = model(version), latents(version, frames)
    coder = ours if implementation == "ours" else RIVALS[implementation](ours)
    coder.decode(z[:, :, :1, :4, :4])  # brings in the libraries' code
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = status("VmRSS:")
    out = coder.decode(z)
    process = status("VmHWM:") - before - out.nbytes
    with Ledger() as ledger:
        coder.decode(z)
    return {"process": process, "tensors": ledger.peak - out.nbytes}


def memory(report: measure.Report, comfyui: Path | None) -> None:
    plain = {name: value for name, value in os.environ.items() if name not in measure.SETTINGS} | {
        "OMP_NUM_THREADS": "1"
    }
    pythons = {"ours": sys.executable} | ({"ComfyUI": python_of(comfyui)} if comfyui else {})
    for version in CONFIGS:
        peaks = {}
        for implementation, python in pythons.items():
            for frames in (FRAMES[0], LONG):
                command = [
                    python,
                    "-m",
                    "benchmarks.cpu.vae",
                    "peak",
                    implementation,
                    version,
                    str(frames),
                    "--inside",
                    str(comfyui or ""),
                ]
                run = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=plain, text=True)
                peaks[implementation, frames] = json.loads(run.stdout.splitlines()[-1])
        mib = {
            f"{implementation}_{kind}_MiB": peaks[implementation, LONG][kind] / 2**20
            for implementation in pythons
            for kind in ("process", "tensors")
        }
        slope = abs(peaks["ours", LONG]["tensors"] / peaks["ours", FRAMES[0]]["tensors"] - 1)
        report.add(
            f"VAE {version} decode memory, {LONG} frames",
            f"{FRAMES[0]} frames",
            slope,
            0.02,
            measure="growth of live tensors",
            **mib,
        )
        if comfyui:
            for kind, target in (("process", MEMORY), ("tensors", None)):
                ratio = peaks["ours", LONG][kind] / peaks["ComfyUI", LONG][kind]
                what = "process growth" if kind == "process" else "live tensors"
                report.add(
                    f"VAE {version} decode memory, {what}, {LONG} frames", "ComfyUI", ratio, target, measure="bytes"
                )


def mp4(report: measure.Report, rounds: int) -> None:
    """Decoding into a file, at full width and where writing weighs more."""
    from wan_core.media.mp4 import write_mp4
    from wan_core.media.pixels import to_uint8

    for name, config, frames, size in (
        ("full width", CONFIGS["2.1"], 17, SIZE),
        ("width 4", VAEConfig(dim=4, decoder_dim=4), 81, SIZE),
    ):
        vae, z = (
            random_module(lambda: make_vae(config), torch.device("cpu"), torch.float32),
            torch.randn(1, 16, 1 + frames // 4, size // 8, size // 8),
        )
        chunks = [to_uint8(chunk[0]) for chunk in vae.decode_chunks(z)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "clip.mp4"

            def seconds(work: Callable) -> float:
                start = time.perf_counter()
                work()
                return time.perf_counter() - start

            ratios, shares = [], []
            for _ in range(rounds):
                decoding = seconds(lambda: [to_uint8(chunk[0]) for chunk in vae.decode_chunks(z)])
                writing = seconds(lambda: write_mp4(chunks, file, 16))
                both = seconds(lambda: write_mp4((to_uint8(chunk[0]) for chunk in vae.decode_chunks(z)), file, 16))
                ratios.append(both / max(decoding, writing))
                shares.append(writing / decoding)
        figures = {"writing_over_decoding": statistics.median(shares)}
        report.add(
            f"decode + mp4, {name}, {frames} frames",
            "the longer of the two",
            measure.Ratio.of(ratios),
            MP4,
            measure="wall time",
            **figures,
        )


RIVALS: dict[str, Callable[[WanVAE], Codec]] = {"diffusers": diffusers_vae, "ComfyUI": comfyui_vae}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the VAE against diffusers and native ComfyUI.")
    parser.add_argument("only", nargs="*", help="decode, encode, memory, mp4; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--rival", choices=RIVALS, help="of decode and encode; default: both")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # ComfyUI's folder, where its python runs this
    args = parser.parse_args()
    if args.only[:1] == ["peak"]:
        _, implementation, version, frames = args.only
        torch.set_num_threads(1)
        if implementation == "ComfyUI":
            open_comfyui(args.inside, "--cpu")
        print(json.dumps(peak(implementation, version, int(frames))))
        return
    only, report = args.only or ["decode", "encode", "memory", "mp4"], measure.Report("vae")
    if args.inside:
        open_comfyui(args.inside, "--cpu")
        speed(report, "ComfyUI", only, args.rounds)
        report.write()
        return
    if args.rival != "ComfyUI" and {"decode", "encode"} & set(only):
        speed(report, "diffusers", only, args.rounds)
        accuracy(report)
    comfyui = find_comfyui()
    if "memory" in only:
        memory(report, comfyui)
    if "mp4" in only:
        mp4(report, args.rounds)
    report.write()
    if comfyui and args.rival != "diffusers" and {"decode", "encode"} & set(only):
        subprocess.run(
            [
                python_of(comfyui),
                "-m",
                "benchmarks.cpu.vae",
                *only,
                "--inside",
                str(comfyui),
                "--rounds",
                str(args.rounds),
            ],
            check=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] != ["peak"]:
        measure.same_settings()
    main()
