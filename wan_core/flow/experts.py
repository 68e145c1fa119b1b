"""Two experts behind one velocity function: the handoff is a property of the velocity, not of the solver."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import TRAIN_TIMESTEPS
from ..errors import InputError
from ..validate import real_number
from .guidance import combine, guided, stack_prompts
from .schedule import FlowSchedule
from .step_cache import StepCache


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
    low: Callable[..., Tensor] | None
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
        """ "high" or "low": who answers a step that starts at this timestep (0..1000)."""
        return "high" if self.low is None or timestep >= self.boundary * TRAIN_TIMESTEPS else "low"

    def plan(self, schedule: FlowSchedule) -> list[str]:
        """Who answers each step of the schedule."""
        return [self.at(t) for t in schedule.timesteps.tolist()]

    def velocity(
        self,
        positive: Tensor | Sequence[Tensor],
        negative: Tensor | Sequence[Tensor] | None,
        y: Tensor | None = None,
        vace=None,
        vace_scale=1.0,
        step_cache: float = 0.0,
        schedule: FlowSchedule | None = None,
        batch_cfg: bool = False,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The guided velocity (x, t) → v for one sampling run.

        A model that offers `session()` is asked for a version of itself that keeps what does not change between
        steps (text projections, rotary tables); only the expert at work holds on to it.

        Args:
            positive, negative: text embeddings (B, n, text_dim), or one (1, n, text_dim) for each sample, which then
                goes through the model by itself. negative may be None where both scales are 1.
            y, vace, vace_scale: handed to the models; where samples go by themselves, each gets its own part of a
                y or vace that has one for each.
            step_cache: 0 to 1; above 0, steps that are expected to change the guided velocity by less than this are
                answered with an earlier one, see `StepCache`. Each expert starts anew, and always computes its first
                two steps and its last one. LatentDataset that go by themselves are judged by themselves.
            schedule: what will be sampled; a step cache needs it.
            batch_cfg: ask the model for both passes of a single sample at once, as a batch of two. The models must take rows
                of zeros for the padding of a text, as `WanDiT` does. Faster where a sample has few tokens.
        Raises:
            InputError: guidance asked for without a negative embedding; a step cache out of range or without a schedule.
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
        step_cache = real_number("step_cache", step_cache, 0, 1)
        last = self._last_steps(schedule) if step_cache else set()
        alone = not isinstance(positive, Tensor)
        texts = (
            list(zip(positive, negative or [None] * len(positive), strict=True)) if alone else [(positive, negative)]
        )
        join = functools.cache(stack_prompts)  # the same batch at each step: models know their texts by identity
        working: dict[str, Callable] = {}
        caches: dict[int, StepCache] = {}  # of the expert at work, one for each sample that goes by itself

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            t = torch.as_tensor(t, device=x.device)
            t = t.expand(len(x)) if t.ndim == 0 else t
            start = float(t.max())  # per-token timesteps: given frames are at 0
            who = self.at(start)
            if who not in working:
                working.clear()
                caches.clear()
                expert = self.high if who == "high" else self.low
                working[who] = expert.session() if hasattr(expert, "session") else expert
            model, scale = working[who], self.cfg_high if who == "high" else self.cfg_low

            def answer(k: int, x: Tensor, t: Tensor, given: dict) -> Tensor:
                def compute() -> Tensor:
                    if batch_cfg and scale != 1 and len(x) == 1:
                        return combine(*model(torch.cat((x, x)), t, join(*texts[k]), **given).chunk(2), scale)
                    return guided(*(lambda text=text: model(x, t, text, **given) for text in texts[k]), scale)

                return (
                    caches.setdefault(k, StepCache(step_cache))(x, compute, start in last) if step_cache else compute()
                )

            with torch.no_grad():
                if not alone:
                    return answer(0, x, t, given)
                samples = zip(range(len(texts)), x.split(1), t.split(1), strict=True)
                return torch.cat([answer(k, *sample, one_of(given, k, len(x))) for k, *sample in samples])

        return velocity

    def _last_steps(self, schedule: FlowSchedule | None) -> set[int]:
        """Timesteps at which an expert, or the run, ends."""
        if schedule is None:
            raise InputError("a step cache without a schedule", "the schedule that will be sampled")
        timesteps, plan = schedule.timesteps.tolist(), self.plan(schedule)
        return {t for t, who, following in zip(timesteps, plan, [*plan[1:], None]) if who != following}


def one_of(given: dict, k: int, count: int) -> dict:
    """What sample k of `count` is given: its own part of tensors that hold one for each, all of the others."""

    def part(value):
        if isinstance(value, (list, tuple)):
            return [part(item) for item in value]
        return value[k : k + 1] if isinstance(value, Tensor) and value.ndim == 5 and len(value) == count else value

    return {name: part(value) for name, value in given.items()}
