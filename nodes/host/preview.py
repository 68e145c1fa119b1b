"""What the browser is told while a run is under way."""

import base64
import io
import logging
import time

import torch
from PIL import Image

EVENT = "wan22.sampling"
AT_WORK = {"high": "high-noise expert: layout and motion", "low": "low-noise expert: texture and detail"}
FRAMES, HEIGHT = 16, 64  # of the clip preview: at most so many frames, so many pixels high
PAUSE = 0.5  # seconds between clip previews


class RunProgress:
    """Follows one run for the node that started it: steps, expert at work, seconds per expert, and the clip so far.

    Without a browser that asked for the run, nothing is sent.
    """

    def __init__(self, node_id: str):
        self.node_id = node_id

    def on_start(self, sigmas: list[float], plan: list[str], latent_format) -> None:
        """A run over `sigmas` (N + 1), with the expert of each of its N steps."""
        self.who, self.pair, self.latent_format = None, len(set(plan)) > 1, latent_format
        self.seconds, self.since, self.shown = {}, time.monotonic(), 0.0
        self._send(sigmas=sigmas, plan=plan)

    def on_expert(self, who: str) -> None:
        """An expert is about to be evaluated."""
        if who != self.who:
            self.who = who
            if self.pair:
                send_status(self.node_id, AT_WORK[who])

    def on_step(self, step: int, x0: torch.Tensor) -> None:
        """Step `step` (from 0) has ended with the estimate `x0`, latents as the model sees them."""
        now = time.monotonic()
        self.seconds[self.who] = self.seconds.get(self.who, 0.0) + now - self.since
        self.since, clip = now, None
        if now - self.shown > PAUSE and client() is not None:
            self.shown, clip = now, clip_strip(self.latent_format, x0)
        self._send(step=step + 1, expert=self.who, clip=clip)

    def on_end(self) -> None:
        self._send(seconds={who: round(seconds, 2) for who, seconds in self.seconds.items()})

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
    strip = Image.fromarray(pixels).resize(
        (max(1, round(frames * width * HEIGHT / height)), HEIGHT), Image.Resampling.BILINEAR
    )
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
