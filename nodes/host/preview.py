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
WIDEST = 160  # pixels of a frame of the clip preview; latents of up to 1280 pixels go as they are
FRAMES_PER_LATENT = 4


@dataclass
class Timing:
    """State of the run that is shown; times as of `time.monotonic`."""

    plan: list[str] = field(default_factory=list)  # the expert of each step
    latent_format: comfy.latent_formats.LatentFormat | None = None
    done: int = 0  # steps
    step_began: float = 0.0
    told: tuple[int, str, bool] | None = None  # step, expert, and whether it is being loaded
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of each step, by expert; loading is not counted

    def left(self) -> float:
        """Seconds for the steps that remain, each as fast as its expert has been; as the other one where it is new."""
        each = {expert: sum(steps) / len(steps) for expert, steps in self.seconds.items()}
        known = next(iter(each.values()))
        return sum(each.get(expert, known) for expert in self.plan[self.done :])


class RunProgress(Progress):
    """Shows a run in the node that started it: the step, the expert at work, its pace, and the clip so far.

    Without a browser that asked for the run, nothing is sent.

    Args:
        ignored_shift: that of a MODEL which the run does not follow.
    """

    def __init__(self, node_id: str, ignored_shift: float | None = None):
        self.node_id, self.ignored_shift = node_id, ignored_shift
        self._run = Timing()

    def on_start(self, sigmas: list[float], plan: list[str], latent_format) -> None:
        self._run = Timing(plan, latent_format)
        self._send(sigmas=sigmas, plan=plan, ignored_shift=self.ignored_shift)

    def on_load(self, expert: str) -> None:
        self._tell(expert, loading=True)

    def on_expert(self, expert: str) -> None:
        if self._run.told is None or self._run.told[2]:
            self._run.step_began = time.monotonic()
        self._tell(expert, loading=False)

    def on_step(self, step: int, x0: torch.Tensor) -> None:
        run, now = self._run, time.monotonic()
        run.done, (_, expert, _) = step + 1, run.told
        run.seconds.setdefault(expert, []).append(now - run.step_began)
        run.step_began = now
        clip = None if client() is None else clip_sheet(run.latent_format, x0)
        self._send(step=run.done, expert=expert, pace=run.seconds[expert][-1], left=run.left(), clip=clip)

    def on_end(self) -> None:
        self._send(seconds={expert: round(sum(steps), 2) for expert, steps in self._run.seconds.items()})

    def _tell(self, expert: str, loading: bool) -> None:
        """That a step has begun, or waits for its expert; once, however often the expert is asked in it."""
        run, now = self._run, (self._run.done + 1, expert, loading)
        if now == run.told:
            return
        if run.told is None or run.told[1:] != now[1:]:
            logging.info("Wan 2.2: %s the %s-noise expert", "loading" if loading else "sampling with", expert)
        run.told = now
        self._send(begun=now[0], expert=expert, loading=loading)

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
