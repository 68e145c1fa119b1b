"""The parameters of a generation, as a caller gives them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """The parameters of `WanPipeline.__call__` under their names; None: the official default of the model."""

    prompt: str | Sequence[str] = ""
    negative_prompt: str | Sequence[str] | None = None
    image: Any = None
    last_image: Any = None
    video: Any = None
    mask: Any = None
    reference_images: Sequence = ()
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
    step_cache: float | None = None
