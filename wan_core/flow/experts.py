"""Two experts behind one velocity function: the handoff is a property of the velocity, not of the solver."""

from dataclasses import dataclass
from typing import Callable, Optional, Sequence

import torch
from torch import Tensor

from ..config import TRAIN_TIMESTEPS
from ..errors import InputError
from ..shapes import real_number
from .guidance import guided
from .schedule import FlowSchedule


@dataclass(frozen=True)
class Experts:
    """The high-noise and the low-noise expert, or one model.

    Args:
        high, low: models (x, t, text, y=, vace=, vace_scale=) → velocity; they are told y and vace only where there
            are any. `low=None`: `high` does every step.
        boundary: in [0, 1], or None without `low`; `high` answers iff the step starts at t >= boundary·1000.
        cfg_high, cfg_low: guidance scale of each expert; 1 skips the negative pass.
    Raises:
        InputError: a boundary outside [0, 1], a scale that is negative or not finite.
    Source: Wan2.2 wan/text2video.py `_prepare_model_for_timestep`.
    """

    high: Callable[..., Tensor]
    low: Optional[Callable[..., Tensor]]
    boundary: float = 0.875
    cfg_high: float = 4.0
    cfg_low: float = 3.0

    def __post_init__(self):
        real_number("the guidance scale of the high-noise expert", self.cfg_high, 0)
        if self.low is not None or self.boundary is not None:
            real_number("boundary", self.boundary, 0, 1)
        if self.low is not None or self.cfg_low is not None:
            real_number("the guidance scale of the low-noise expert", self.cfg_low, 0)

    def at(self, timestep: float) -> str:
        """"high" or "low": who answers a step that starts at this timestep (0..1000)."""
        return "high" if self.low is None or timestep >= self.boundary * TRAIN_TIMESTEPS else "low"

    def plan(self, schedule: FlowSchedule) -> list[str]:
        """Who answers each step of the schedule."""
        return [self.at(t) for t in schedule.timesteps.tolist()]

    def velocity(
        self,
        positive: Tensor | Sequence[Tensor],
        negative: Optional[Tensor | Sequence[Tensor]],
        y: Optional[Tensor] = None,
        vace=None,
        vace_scale=1.0,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The guided velocity (x, t) → v for one sampling run.

        A model that offers `remember()` is asked for a version of itself that keeps what does not change between
        steps (text projections, rotary tables); only the expert at work holds on to it.

        Args:
            positive, negative: text embeddings (B, n, text_dim), or one (1, n, text_dim) for each sample, which then
                goes through the model by itself. negative may be None where both scales are 1.
            y, vace, vace_scale: handed to the models; where samples go by themselves, each gets its own part of a
                y or vace that has one for each.
        Raises:
            InputError: guidance asked for without a negative embedding.
        """
        given = {} if y is None else {"y": y}
        if vace is not None:
            given |= {"vace": vace, "vace_scale": vace_scale}
        if negative is None and (self.cfg_high != 1 or (self.low is not None and self.cfg_low != 1)):
            raise InputError(
                f"guidance scales of {self.cfg_high} and {self.cfg_low} without a negative prompt",
                "a negative prompt, which may be empty",
                "Set both scales to 1 to run without it",
            )
        working: dict[str, Callable] = {}

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            t = torch.as_tensor(t, device=x.device)
            t = t.expand(len(x)) if t.ndim == 0 else t
            who = self.at(float(t.max()))  # per-token timesteps: given frames are at 0
            if who not in working:
                working.clear()
                expert = self.high if who == "high" else self.low
                working[who] = expert.remember() if hasattr(expert, "remember") else expert
            model = working[who]

            def answer(text: Tensor | Sequence[Tensor]) -> Tensor:
                if isinstance(text, Tensor):
                    return model(x, t, text, **given)
                alone = zip(x.split(1), t.split(1), text, strict=True)
                return torch.cat([model(*sample, **one_of(given, k, len(x))) for k, sample in enumerate(alone)])

            with torch.no_grad():
                scale = self.cfg_high if who == "high" else self.cfg_low
                return guided(lambda: answer(positive), lambda: answer(negative), scale)

        return velocity


def one_of(given: dict, k: int, count: int) -> dict:
    """What sample k of `count` is given: its own part of tensors that hold one for each, all of the others."""

    def part(value):
        if isinstance(value, (list, tuple)):
            return [part(item) for item in value]
        return value[k : k + 1] if isinstance(value, Tensor) and value.ndim == 5 and len(value) == count else value

    return {name: part(value) for name, value in given.items()}
