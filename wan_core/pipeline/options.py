"""The parameters of one generation, listed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..flow.solvers import Callback


@dataclass(frozen=True)
class Options:
    """What a caller may say about a generation; `WanPipeline.__call__` explains each. None means the model's default.

    Nothing is checked here: `Inputs.resolve` and `Request.resolve` do, for the model at hand.
    """

    prompt: str | Sequence[str] = ""
    negative_prompt: str | Sequence[str] | None = None
    image: Any = None
    last_image: Any = None
    video: Any = None
    mask: Any = None
    reference_images: Sequence[Any] = ()
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    boundary_ratio: float | None = None
    flow_shift: float | None = None
    solver: str = "unipc"
    seed: int | Sequence[int] | None = None
    callback: Callback | None = None
    step_cache: float | None = None
