"""What every part of the GPU benchmark needs: the clips, and the rows of one piece of work."""

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.gpu.device import GIB, Device, random_module
from benchmarks.rivals import comfyui_dit, comfyui_vae, diffusers_dit, diffusers_vae, has_diffusers
from wan_core.checkpoints.build import is_float32_layer
from wan_core.config import PRESETS, DiTConfig, Preset, VAEConfig
from wan_core.dit import WanDiT
from wan_core.shapes import VideoShape

PROMPT = 120  # tokens


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
    report: measure.Report
    clips: tuple[Clip, ...]
    folder: str | None
    tiny: bool
    inside: bool
    ceiling: float = 0.0

    @property
    def ours(self) -> str:
        return "ours, beside ComfyUI" if self.inside else "ours"

    def rivals(self, kind: str, ours) -> dict[str, Callable]:
        if self.inside:
            return {"ComfyUI": comfyui_dit(ours) if kind == "dit" else comfyui_vae(ours).decode}
        return (
            {"diffusers": diffusers_dit(ours) if kind == "dit" else diffusers_vae(ours).decode}
            if has_diffusers()
            else {}
        )

    def fits(self, what: str, seconds: float) -> bool:
        if seconds < self.device.left():
            return True
        print(
            json.dumps({"left out": what, "needs about": round(seconds), "seconds left": round(self.device.left())}),
            flush=True,
        )
        return False

    def compare(
        self,
        what: str,
        turns: Mapping[str, Callable],
        flops: float = 0,
        errors: Mapping[str, float] = {},
        budget: float = 25,
    ) -> None:
        """Rows of one piece of work: the first turn is ours. Turns return what they made, or nothing."""
        made = {}
        figures = self.device.measure({name: lambda n=name: made.update({n: turns[n]()}) for name in turns}, budget)
        ours = next(iter(turns))
        for name, found in figures.items():
            if found is None:
                print(json.dumps({"what": what, "against": name, "out of memory": True}), flush=True)
                continue
            row = {"rounds": found.rounds}
            if found.peak is not None:
                row["peak GiB"] = found.peak / GIB
            if flops:
                row |= {
                    "TFLOP/s": flops / found.seconds / 1e12,
                    "of the matmul ceiling": flops / found.seconds / self.ceiling,
                }
            if name != ours and figures[ours] is not None:
                row["ours/theirs"] = figures[ours].seconds / found.seconds
                if made[name] is not None:
                    row["difference from ours"] = measure.error(made[name], made[ours])
            if name in errors:
                row["error against fp32"] = errors[name]
            self.report.add(what, name, found.seconds, measure="seconds", **row)

    def close(self) -> None:
        gc.collect()
        self.device.empty()


def random_dit(config: DiTConfig, device: Device) -> WanDiT:
    return random_module(lambda: WanDiT(config), device.device, torch.bfloat16, is_float32_layer)


def dit_inputs(clip: Clip, device: Device) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, a timestep and a prompt."""
    torch.manual_seed(1)
    latents = torch.randn(1, *clip.shape.latent(clip.preset.vae), device=device.device)
    text = torch.randn(1, PROMPT, clip.preset.dit.text_dim, device=device.device, dtype=torch.bfloat16)
    return latents, torch.tensor([900], device=device.device), text
