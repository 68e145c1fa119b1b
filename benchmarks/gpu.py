"""One GPU at real sizes, random weights: python benchmarks/gpu.py [ceilings dit vae switch compile] [--seconds 540]

Rows go to results/gpu.md and gpu.json as they are measured; a run that is cut off keeps what it has, and a row that is
measured again replaces the old one. What does not fit into --seconds is left out and named. diffusers takes part where it is
installed; native ComfyUI where its folder is found ($COMFYUI_PATH), in a process of its own beside ours again. Both get our
weights, as the same tensors. Everything is drawn on the GPU, one expert at a time (28 GB in bfloat16); the switch needs
60 GB of host memory and 30 GB of disk (--folder). Packages: torch, einops, numpy, safetensors, sentencepiece, tokenizers.

--tiny runs the same code on small sizes and prints its table: the way to try it on a CPU.
"""

import argparse
import copy
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Mapping, Optional

import measure
import torch
from canvas import find_comfyui, python_of
from device import GIB, Device, attention_ceiling, copy_ceiling, matmul_ceiling, random_module
from rivals import comfyui_dit, comfyui_vae, diffusers_dit, diffusers_vae, has_diffusers, open_comfyui
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from wan_core.checkpoints import load_dit
from wan_core.checkpoints.build import is_float32_layer
from wan_core.config import PRESETS, DiTConfig, Preset, VAEConfig
from wan_core.dit import WanDiT
from wan_core.memory import DeviceSlot
from wan_core.shapes import VideoShape
from wan_core.vae import WanVAE

PROMPT = 120  # tokens
CHECK_FRAMES = 17  # length of the clips whose error is taken: float32 has to do them too


@dataclass(frozen=True)
class Clip:
    """A size at which a model is measured."""

    model: str
    preset: Preset
    shape: VideoShape

    @property
    def name(self) -> str:
        return f"{self.shape.width}×{self.shape.height}, {self.shape.frames} frames"

    def frames(self, count: int) -> "Clip":
        return replace(self, shape=replace(self.shape, frames=count))

    @property
    def tokens(self) -> int:
        return self.shape.tokens(self.preset.vae, self.preset.dit)


REAL = (
    Clip("A14B", PRESETS["t2v-a14b"], VideoShape(81, 480, 832)),
    Clip("5B", PRESETS["ti2v-5b"], VideoShape(121, 704, 1280)),
    Clip("A14B", PRESETS["t2v-a14b"], VideoShape(81, 720, 1280)),
)


def tiny(clip: Clip) -> Clip:
    """The same model and clip in small."""
    preset = clip.preset
    vae = VAEConfig(dim=8, decoder_dim=8) if preset.vae.version == "2.1" else VAEConfig.wan22(8, 8)
    preset = replace(preset, dit=replace(preset.dit, dim=256, heads=2, ffn_dim=512, layers=2, text_dim=64), vae=vae)
    return Clip(clip.model, preset, VideoShape(5, 32, clip.shape.width // 320 * 32))


@dataclass
class Bench:
    """What every part needs.

    Attributes:
        inside: this is ComfyUI's python, and ComfyUI is the rival.
        ceiling: FLOP/s of a bfloat16 matmul here.
    """

    device: Device
    report: "GpuReport"
    clips: tuple[Clip, ...]
    folder: Optional[str]
    tiny: bool
    inside: bool
    ceiling: float = 0.0

    @property
    def ours(self) -> str:
        return "ours, beside ComfyUI" if self.inside else "ours"

    def rivals(self, kind: str, ours) -> dict[str, Callable]:
        if self.inside:
            return {"ComfyUI": comfyui_dit(ours) if kind == "dit" else comfyui_vae(ours).decode}
        return {"diffusers": diffusers_dit(ours) if kind == "dit" else diffusers_vae(ours).decode} if has_diffusers() else {}

    def fits(self, what: str, seconds: float) -> bool:
        if seconds < self.device.left():
            return True
        print(json.dumps({"left out": what, "needs about": round(seconds), "seconds left": round(self.device.left())}), flush=True)
        return False

    def compare(self, what: str, turns: Mapping[str, Callable], flops: float = 0, errors: Mapping[str, float] = {}, room: float = 25) -> None:
        """Rows of one piece of work: the first turn is ours. Turns return what they made, or nothing."""
        made = {}
        figures = self.device.measure({name: lambda n=name: made.update({n: turns[n]()}) for name in turns}, room)
        ours = next(iter(turns))
        for name, found in figures.items():
            if found is None:
                print(json.dumps({"what": what, "against": name, "out of memory": True}), flush=True)
                continue
            facts = {"rounds": found.rounds}
            if found.peak is not None:
                facts["peak GiB"] = found.peak / GIB
            if flops:
                facts |= {"TFLOP/s": flops / found.seconds / 1e12, "of the matmul ceiling": flops / found.seconds / self.ceiling}
            if name != ours and figures[ours] is not None:
                facts["ours/theirs"] = figures[ours].seconds / found.seconds
                if made[name] is not None:
                    facts["difference from ours"] = measure.error(made[name], made[ours])
            if name in errors:
                facts["error against fp32"] = errors[name]
            self.report.add(what, name, found.seconds, measure="seconds", **facts)

    def close(self) -> None:
        gc.collect()
        self.device.empty()


class GpuReport(measure.Report):
    """Rows of seconds, memory and shares, written as they come."""

    COLUMNS = (
        "value", "rounds", "peak GiB", "TFLOP/s", "of the matmul ceiling", "ours/theirs", "error against fp32", "difference from ours",
    )  # fmt: skip

    def __init__(self, name: str, about: str, keep: bool):
        super().__init__(name)
        self.about, self.keep = about, keep
        if not keep:
            self.rows = []

    def add(self, *args, **facts) -> None:
        super().add(*args, **facts)
        if self.keep:
            self.write()

    def write(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps({"machine": self.about, "rows": self.rows}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        self.path.with_suffix(".md").write_text(f"{self.about}\n\n{self.table()}", encoding="utf-8")

    def table(self) -> str:
        """Markdown. Peaks are above the weights and whatever else was there before."""
        lines = ["| what | whose | " + " | ".join(("value", *self.COLUMNS[1:])) + " | |", "|---" * (len(self.COLUMNS) + 3) + "|"]
        for row in self.rows:
            cells = [f"{row[name]:.3g}" if name in row else "" for name in self.COLUMNS]
            cells[0] += " " + row["measure"]
            known = {*self.COLUMNS, "what", "against", "measure", "torch"}
            rest = ", ".join(f"{name} {value}" for name, value in row.items() if name not in known)
            lines.append(f"| {row['what']} | {row['against']} | {' | '.join(cells)} | {rest} |")
        return "\n".join(lines) + "\n"


def forward_flops(config: DiTConfig, tokens: int, text: int) -> float:
    """Multiplications and additions of one forward within a run: the text's keys are there already."""
    d, f = config.dim, config.ffn_dim
    block = 2 * tokens * (6 * d * d + 2 * d * f) + 4 * tokens * (tokens + text) * d
    return config.layers * block + 2 * tokens * d * 4 * (config.in_channels + config.out_channels)


def decode_flops(config: VAEConfig, latents: Tensor) -> float:
    """Of our own decode, counted on shapes alone: of one and of five latent frames, from where it goes on evenly."""
    with torch.device("meta"):
        vae = WanVAE(config)
    counts = []
    for frames in (1, 5):
        with FlopCounterMode(display=False) as counter:
            stream(vae, torch.empty(*latents.shape[:2], frames, *latents.shape[3:], device="meta"))
        counts.append(counter.get_total_flops())
    return counts[0] + (counts[1] - counts[0]) / 4 * (latents.shape[2] - 1)


def exactly(model, run: Callable):
    """run(a float32 copy of the model), without TensorFloat-32; None where there is no memory for it."""
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return run(copy.deepcopy(model).float())
    except torch.OutOfMemoryError:
        return None


def ceilings(bench: Bench) -> None:
    """What the parts are held against."""
    device = bench.device
    if not bench.inside:
        size = 256 if bench.tiny else 8192
        for dtype in (torch.bfloat16, torch.float32):
            rate = matmul_ceiling(device, size, dtype)
            bench.report.add(f"matmul {size}³, {str(dtype)[6:]}", "torch", rate / 1e12, measure="TFLOP/s")
        config = bench.clips[0].preset.dit
        for clip in bench.clips:
            rate = attention_ceiling(device, config.heads, clip.tokens, config.head_dim, torch.bfloat16)
            facts = {"of the matmul ceiling": rate / bench.ceiling}
            bench.report.add(f"attention, {clip.tokens:,} tokens, {config.heads} heads", "torch", rate / 1e12, measure="TFLOP/s", **facts)
        rate = copy_ceiling(device, (1 << 20) if bench.tiny else (4 << 30))
        bench.report.add("copy from pinned memory", "torch", rate / 1e9, measure="GB/s")


def dit(bench: Bench) -> None:
    """A forward of the transformer within a run."""
    device = bench.device
    for name in dict.fromkeys(clip.model for clip in bench.clips):
        clips = [clip for clip in bench.clips if clip.model == name]
        config = clips[0].preset.dit
        model = random_dit(config, device)
        rivals = bench.rivals("dit", model)
        check = clips[0].frames(min(CHECK_FRAMES, clips[0].shape.frames))
        given = dit_inputs(check, device)
        reference = exactly(model, lambda exact: exact(*(x.float() for x in given)))
        for clip in (check, *(clip for clip in clips if clip != check)):
            what = f"{name} forward, {clip.name}"
            flops = forward_flops(config, clip.tokens, PROMPT)
            if not bench.fits(what, 2 * (1 + len(rivals)) * flops / (0.4 * bench.ceiling)):
                continue
            given, run = dit_inputs(clip, device), model.remember()
            turns = {bench.ours: lambda run=run: run(*given)} | {rival: lambda c=call: c(*given) for rival, call in rivals.items()}
            errors = {}
            if clip == check and reference is not None:
                errors = {who: measure.error(turn(), reference) for who, turn in turns.items()}
            bench.compare(what, turns, flops, errors)
        del model, rivals, run, turns
        bench.close()


def random_dit(config: DiTConfig, device: Device) -> WanDiT:
    return random_module(lambda: WanDiT(config), device.device, torch.bfloat16, is_float32_layer)


def dit_inputs(clip: Clip, device: Device) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, a timestep and a prompt."""
    torch.manual_seed(1)
    latents = torch.randn(1, *clip.shape.latent(clip.preset.vae), device=device.device)
    text = torch.randn(1, PROMPT, clip.preset.dit.text_dim, device=device.device, dtype=torch.bfloat16)
    return latents, torch.tensor([900], device=device.device), text


def vae(bench: Bench) -> None:
    """Decoding: ours chunk by chunk, each dropped, as `save` does it; the rivals whole clips, their only way."""
    for clip in bench.clips:
        config = clip.preset.vae
        torch.manual_seed(2)
        latents = torch.randn(1, *clip.shape.latent(config), device=bench.device.device)
        flops = decode_flops(config, latents)
        for dtype in (torch.bfloat16, torch.float32):
            what = f"VAE {config.version} decode, {str(dtype)[6:]}, {clip.name}"
            model = random_module(lambda: WanVAE(config), bench.device.device, dtype)
            rivals = bench.rivals("vae", model)
            if not bench.fits(what, 2 * (1 + len(rivals)) * flops / (0.1 * bench.ceiling)):
                continue
            start = latents[:, :, :3]
            reference = exactly(model, lambda exact: exact.decode(start))
            whole = {bench.ours: model.decode, **rivals}
            errors = {} if reference is None else {name: measure.error(decode(start), reference) for name, decode in whole.items()}
            del reference
            turns = {bench.ours: lambda model=model: stream(model, latents)}
            turns |= {name: lambda c=call: drop(c(latents)) for name, call in rivals.items()}
            bench.compare(what, turns, flops, errors)
            del model, rivals, whole, turns
            bench.close()


def stream(model: WanVAE, latents: Tensor) -> None:
    for _ in model.decode_chunks(latents):
        pass


def drop(result: Tensor) -> None:
    pass


def switch(bench: Bench) -> None:
    """The other expert onto the device: from pinned memory, from a file that is on disk, and from one that was read ahead."""
    clip, device = bench.clips[0], bench.device
    config, given = clip.preset.dit, dit_inputs(clip, device)
    model = random_dit(config, device)
    run, size = model.remember(), sum(p.nbytes for p in model.parameters())
    step = 2 * device.measure({"": lambda: run(*given)}, room=15)[""].seconds  # with guidance

    def add(what: str, seconds: float, **facts) -> None:
        facts |= {"GB/s": size / seconds / 1e9, "of a guided step": seconds / step}
        bench.report.add(f"expert switch, {what}", "ours", seconds, measure="seconds", **facts)

    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        file = None
        if shutil.disk_usage(folder).free < 1.05 * size:
            print(json.dumps({"left out": "expert switch from a file", "needs GB of disk": size / 1e9}), flush=True)
        elif bench.fits("expert switch from a file", 6 * size / 1e9):
            file = write_expert(model, Path(folder) / "expert.safetensors")
        high, low = (pinned(model, device) for _ in range(2))
        del model, run
        bench.close()
        slot = DeviceSlot(device.device, exclusive=True)
        peak = device.peak(lambda: (slot.bring(high), slot.bring(low)))
        seconds = min(device.seconds(lambda e=expert: slot.bring(e)) for expert in (high, low, high))
        add("pinned memory", seconds, **({} if peak is None else {"peak over one expert": peak / size}))
        if file is not None:
            cold = from_file(device, slot, file, config, high)
            add("file on disk", cold)
            run = high.remember()

            def steps() -> None:
                end = time.monotonic() + 1.5 * cold + 1
                while time.monotonic() < end:
                    device.seconds(lambda: run(*given))

            add("file on disk, read ahead", from_file(device, slot, file, config, high, steps))
        slot.finish()


def pinned(model: WanDiT, device: Device) -> WanDiT:
    """A copy of the model in page-locked host memory, in one piece: torch rounds every piece up to a power of two."""
    state = model.state_dict()
    room = torch.empty(sum(-(-p.nbytes // 64) * 64 for p in state.values()), dtype=torch.uint8, pin_memory=device.is_cuda)
    with torch.device("meta"):
        copied, start = WanDiT(model.config), 0
    for name, p in state.items():
        state[name] = room[start : start + p.nbytes].view(p.dtype).view(p.shape).copy_(p)
        start += -(-p.nbytes // 64) * 64
    copied.load_state_dict(state, assign=True)
    return copied.eval().requires_grad_(False)


def write_expert(model: WanDiT, file: Path) -> Path:
    from safetensors.torch import save_file

    save_file(model.state_dict(), file)
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
    return file


def from_file(device: Device, slot: DeviceSlot, file: Path, config: DiTConfig, high: WanDiT, meanwhile: Optional[Callable] = None) -> float:
    """Seconds to replace `high` by an expert whose file is on disk alone, or is read ahead while `meanwhile` runs."""
    gc.collect()
    with open(file, "rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    low = load_dit(file, config)  # mapped: reads the header alone
    slot.bring(high)
    if meanwhile is not None:
        slot.read_ahead(low)
        meanwhile()
        slot.stop_reading()
    seconds = device.seconds(lambda: slot.bring(low))
    slot.release()
    return seconds


def compiled(bench: Bench) -> None:
    """Blocks through torch.compile beside the same blocks as they are, on the same tensors."""
    clip = bench.clips[0]
    model = random_dit(clip.preset.dit, bench.device)
    with torch.device("meta"):
        faster = WanDiT(model.config)
    faster.load_state_dict(model.state_dict(), assign=True)
    for block in faster.eval().requires_grad_(False).blocks:
        block.compile(backend="eager" if bench.tiny else "inductor")
    given, plain, run = dit_inputs(clip, bench.device), model.remember(), faster.remember()
    turns = {"ours, compiled": lambda: run(*given), "ours": lambda: plain(*given)}
    turns["ours, compiled"]()  # compiles
    bench.compare(f"{clip.model} forward with torch.compile, {clip.name}", turns, forward_flops(model.config, clip.tokens, PROMPT))


PARTS = {"ceilings": ceilings, "dit": dit, "vae": vae, "switch": switch, "compile": compiled}
RIVALLED = ("dit", "vae")


def run_parts(bench: Bench, names) -> int:
    """Number of parts that failed; one that fails does not take the others along."""
    failed = 0
    for name in names:
        try:
            PARTS[name](bench)
        except Exception:
            traceback.print_exc()
            failed += 1
        bench.close()
    return failed


def beside_comfyui(options: argparse.Namespace, bench: Bench, folder: Path, names: list[str]) -> int:
    """The same parts again in ComfyUI's python, with ComfyUI as the rival."""
    python = python_of(folder) if Path(python_of(folder)).exists() else sys.executable
    command = [python, __file__, *names, "--inside", str(folder), "--device", options.device, "--seconds", str(int(bench.device.left()))]
    return subprocess.run([*command, "--tiny"] if options.tiny else command).returncode


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description="Measure one GPU at real sizes with random weights.")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=540, help="time there is, all parts together (default: %(default)s)")
    parser.add_argument("--folder", help="where the switch writes an expert; default: the system's temporary folder")
    parser.add_argument("--tiny", action="store_true", help="small sizes, table printed and not kept")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # ComfyUI's folder, when its python runs this
    options = parser.parse_args()
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.inside:
        open_comfyui(options.inside, *(["--cpu"] if options.device == "cpu" else []))
    device = Device(options.device, options.seconds, rounds=2 if options.tiny else 9)
    report = GpuReport("gpu", device.about(), keep=not options.tiny)
    clips = tuple(tiny(clip) for clip in REAL) if options.tiny else REAL
    bench = Bench(device, report, clips, options.folder, options.tiny, bool(options.inside))
    bench.ceiling = matmul_ceiling(device, 256 if options.tiny else 8192, torch.bfloat16)
    folder = None if options.inside else find_comfyui()
    again = [name for name in options.parts if name in RIVALLED] if folder else []
    later = 0.45 * options.seconds if again else 0  # is ComfyUI's
    device.end -= later
    failed = run_parts(bench, options.parts)
    device.end += later
    if options.tiny:
        print(report.table())
    if again:
        failed += beside_comfyui(options, bench, folder, again)
    elif not options.inside:
        print(json.dumps({"ComfyUI": "not found" if folder is None else "not in these parts"}))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
