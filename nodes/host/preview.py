"""What the browser is told during a run."""

import base64
import io
import logging
import math
import time
from dataclasses import dataclass, field

import comfy.latent_formats
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image

from ...wan_core.config import PRESETS
from .guider import Progress

EVENT = "wan22.sampling"
STATUS = {"high": "high-noise expert: layout and motion", "low": "low-noise expert: texture and detail"}
WIDEST = 160  # pixels of a frame of the clip preview; latents of up to 1280 pixels go as they are
FRAMES_PER_LATENT = 4


@dataclass
class Timing:
    """State of the run that is shown; times as of `time.monotonic`."""

    two_experts: bool = False
    latent_format: comfy.latent_formats.LatentFormat | None = None
    step_began: float = 0.0
    expert: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # spent by each expert


class RunProgress(Progress):
    """Shows a run in the node that started it: steps, expert at work, seconds per expert, and the clip so far.

    Without a browser that asked for the run, nothing is sent.

    Args:
        ignored_shift: that of a MODEL which the run does not follow.
    """

    def __init__(self, node_id: str, ignored_shift: float | None = None):
        self.node_id, self.ignored_shift = node_id, ignored_shift
        self._run = Timing()

    def on_start(self, sigmas: list[float], plan: list[str], latent_format) -> None:
        self._run = Timing(len(set(plan)) > 1, latent_format, step_began=time.monotonic())
        self._send(sigmas=sigmas, plan=plan, ignored_shift=self.ignored_shift)

    def on_expert(self, expert: str) -> None:
        run = self._run
        if expert != run.expert:
            run.expert = expert
            if run.two_experts:
                send_status(self.node_id, STATUS[expert])

    def on_step(self, step: int, x0: torch.Tensor) -> None:
        run, now = self._run, time.monotonic()
        run.seconds[run.expert] = run.seconds.get(run.expert, 0.0) + now - run.step_began
        run.step_began = now
        clip = None if client() is None else clip_sheet(run.latent_format, x0)
        self._send(step=step + 1, expert=run.expert, clip=clip)

    def on_end(self) -> None:
        self._send(seconds={expert: round(seconds, 2) for expert, seconds in self._run.seconds.items()})

    def _send(self, **event) -> None:
        if client() is not None:
            from server import PromptServer

            PromptServer.instance.send_sync(EVENT, {"node": str(self.node_id), **event}, client())


def client() -> str | None:
    """The browser that asked for the run, if one did."""
    from server import PromptServer

    return getattr(getattr(PromptServer, "instance", None), "client_id", None)


def send_status(node_id: str, text: str) -> None:
    """Show a line of text in a node, and in the log."""
    logging.info("Wan 2.2: %s", text)
    if client() is not None:
        from server import PromptServer

        PromptServer.instance.send_progress_text(text, node_id)


def clip_sheet(latent_format, x0: torch.Tensor) -> dict | None:
    """All frames of the first clip of x0 (B, C, T, h, w) on one JPEG, row by row, and how to play them.

    Colours come from the latents by one matrix, as in ComfyUI's own fast preview; nothing is decoded.
    """
    if latent_format.latent_rgb_factors is None or x0.ndim != 5:
        return None
    latents = x0[0].float().cpu()
    if latents.shape[3] > WIDEST:
        height = round(latents.shape[2] * WIDEST / latents.shape[3])
        latents = F.interpolate(latents.movedim(1, 0), (height, WIDEST), mode="area").movedim(0, 1)
    colours = torch.einsum(
        "cthw,cr->thwr", latents, torch.tensor(latent_format.latent_rgb_factors, dtype=torch.float32)
    )
    if latent_format.latent_rgb_factors_bias is not None:
        colours = colours + torch.tensor(latent_format.latent_rgb_factors_bias, dtype=torch.float32)
    pixels = ((colours + 1) * 127.5).nan_to_num().clamp(0, 255).byte()
    frames = len(pixels)
    columns = math.ceil(math.sqrt(frames))
    rows = math.ceil(frames / columns)
    pixels = torch.cat((pixels, pixels.new_zeros(rows * columns - frames, *pixels.shape[1:])))
    sheet = rearrange(pixels, "(row column) h w rgb -> (row h) (column w) rgb", row=rows)
    file = io.BytesIO()
    Image.fromarray(sheet.numpy()).save(file, "JPEG", quality=85)
    preset = PRESETS["ti2v-5b" if latent_format.latent_channels == 48 else "t2v-a14b"]
    return {
        "picture": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
        "frames": frames,
        "columns": columns,
        "fps": preset.fps / FRAMES_PER_LATENT,
    }
