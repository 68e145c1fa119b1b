"""What the browser is told during a run."""

import base64
import io
import logging
import time
from dataclasses import dataclass, field

import comfy.latent_formats
import torch
from PIL import Image

from .guider import Progress

EVENT = "wan22.sampling"
STATUS = {"high": "high-noise expert: layout and motion", "low": "low-noise expert: texture and detail"}
FRAMES, HEIGHT = 16, 64  # of the clip preview: at most so many frames, so many pixels high
PAUSE = 0.5  # seconds between clip previews


@dataclass
class Timing:
    """State of the run that is shown; times as of `time.monotonic`."""

    two_experts: bool = False
    latent_format: comfy.latent_formats.LatentFormat | None = None
    step_began: float = 0.0
    clip_shown: float = 0.0
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
        run, now, clip = self._run, time.monotonic(), None
        run.seconds[run.expert] = run.seconds.get(run.expert, 0.0) + now - run.step_began
        run.step_began = now
        if now - run.clip_shown > PAUSE and client() is not None:
            run.clip_shown, clip = now, clip_strip(run.latent_format, x0)
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


def clip_strip(latent_format, x0: torch.Tensor) -> str | None:
    """Frames of the first clip of x0 (B, C, T, h, w) side by side, as a data URL of a JPEG.

    Colours come from the latents by one matrix, as in ComfyUI's own fast preview; nothing is decoded.
    """
    if latent_format.latent_rgb_factors is None or x0.ndim != 5:
        return None
    latents = x0[0, :, torch.linspace(0, x0.shape[2] - 1, min(FRAMES, x0.shape[2])).round().long()].float().cpu()
    factors = torch.tensor(latent_format.latent_rgb_factors)
    colours = torch.einsum("cthw,cr->htwr", latents, factors)
    if latent_format.latent_rgb_factors_bias is not None:
        colours = colours + torch.tensor(latent_format.latent_rgb_factors_bias)
    height, frames, width = colours.shape[:3]
    pixels = ((colours.flatten(1, 2) + 1) * 127.5).nan_to_num().clamp(0, 255).byte().numpy()
    size = (max(1, round(frames * width * HEIGHT / height)), HEIGHT)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
