"""Two experts behind one velocity function: the handoff is a property of the velocity, not of the solver."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from ..config import TRAIN_TIMESTEPS
from ..errors import InputError
from ..validate import real_number
from .guidance import GuidedVelocity, PerSample, stack_prompts
from .schedule import FlowSchedule
from .session import Expert, Model, Velocity, as_expert
from .step_cache import StepCached


@dataclass(frozen=True)
class Experts:
    """The high-noise and the low-noise expert, or one model.

    Args:
        high, low: models (x, t, text, y=, vace=, …) → velocity, see `Expert`; they are given the conditions that there
            are. `low=None`: `high` does every step.
        boundary: in [0, 1], or None without `low`; `high` answers iff the step starts at t >= boundary·1000.
        cfg_high, cfg_low: guidance scale of each expert; 1 skips the negative pass.
    Raises:
        InputError: a boundary outside [0, 1], a scale that is negative or not finite.
    Source: Wan2.2 wan/text2video.py `_prepare_model_for_timestep`.
    """

    high: Model | Expert
    low: Model | Expert | None
    boundary: float | None = 0.875
    cfg_high: float = 4.0
    cfg_low: float | None = 3.0

    def __post_init__(self) -> None:
        real_number("the guidance scale of the high-noise expert", self.cfg_high, 0)
        if self.low is not None or self.boundary is not None:
            real_number("boundary", self.boundary, 0, 1)
        if self.low is not None or self.cfg_low is not None:
            real_number("the guidance scale of the low-noise expert", self.cfg_low, 0)

    def at(self, timestep: float) -> str:
        """ "high" or "low": the expert that answers a step that starts at this timestep (0..1000)."""
        if self.low is None or self.boundary is None:
            return "high"
        return "high" if timestep >= self.boundary * TRAIN_TIMESTEPS else "low"

    def plan(self, schedule: FlowSchedule) -> list[str]:
        """The expert of each step of the schedule."""
        return [self.at(t) for t in schedule.timesteps.tolist()]

    def velocity(
        self,
        positive: Tensor | Sequence[Tensor],
        negative: Tensor | Sequence[Tensor] | None,
        y: Tensor | None = None,
        vace: Tensor | Sequence[Tensor] | None = None,
        vace_scale: float | Sequence[float] = 1.0,
        step_cache: float = 0.0,
        schedule: FlowSchedule | None = None,
        batch_cfg: bool = False,
        context_latents: Sequence[Tensor] = (),
        reference_latent: Tensor | None = None,
        image_embeds: Tensor | None = None,
    ) -> Velocity:
        """The guided velocity (x, t) → v for one sampling run.

        Args:
            positive, negative: text embeddings (B, n, text_dim), or one (1, n, text_dim) for each sample, which then
                goes through the model by itself. negative may be None where both scales are 1.
            y, vace, vace_scale: handed to the models; where samples go by themselves, each gets its own part of a
                y or vace that has one for each.
            step_cache: 0 to 1; above 0, steps that are expected to change the guided velocity by less than this are
                answered with an earlier one, see `StepCached`. Each expert starts anew, and always computes its first
                two steps and its last one. Samples that go by themselves are judged by themselves.
            schedule: what will be sampled; a step cache needs it.
            batch_cfg: ask the model for both passes of a single sample at once, as a batch of two. The models must take
                rows of zeros for the padding of a text, as `WanDiT` does. Faster where a sample has few tokens.
            context_latents, reference_latent, image_embeds: handed to the models as y is.
        Raises:
            InputError: guidance without a negative embedding; a step cache out of range or without a schedule.
        """
        self._check_negative(negative)
        step_cache = real_number("step_cache", step_cache, 0, 1)
        together = isinstance(positive, Tensor)
        texts = _texts(positive, negative)
        stacked = _stacked_once(texts) if batch_cfg else [None] * len(texts)
        given = {"y": y, "vace": vace, "reference_latent": reference_latent, "image_embeds": image_embeds}
        conditions: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if vace is not None:
            conditions["vace_scale"] = vace_scale
        if context_latents:
            conditions["context_latents"] = context_latents
        expert_for = Handoff(self).expert_for
        velocities: list[Velocity] = []
        for k, (text, both) in enumerate(zip(texts, stacked, strict=True)):
            own = conditions if together else {name: part_of(c, k, len(texts)) for name, c in conditions.items()}
            velocities.append(GuidedVelocity(expert_for, *text, both, own))
        if step_cache:
            last_steps = self._last_steps(schedule)
            velocities = [StepCached(guided, step_cache, self.at, last_steps) for guided in velocities]
        return velocities[0] if together else PerSample(velocities)

    def _check_negative(self, negative: Tensor | Sequence[Tensor] | None) -> None:
        if negative is None and (self.cfg_high != 1 or (self.low is not None and self.cfg_low != 1)):
            raise InputError(
                f"guidance scales of {self.cfg_high} and {self.cfg_low} without a negative prompt",
                "a negative prompt, which may be empty",
                "Set both scales to 1 to run without it",
            )

    def _last_steps(self, schedule: FlowSchedule | None) -> set[int]:
        """Timesteps at which an expert, or the run, ends."""
        if schedule is None:
            raise InputError("a step cache without a schedule", "the schedule that will be sampled")
        timesteps, plan = schedule.timesteps.tolist(), self.plan(schedule)
        following = [*plan[1:], None]
        return {t for t, expert, successor in zip(timesteps, plan, following, strict=True) if expert != successor}


class Handoff:
    """The experts in one run. Only the expert at work has a session, so what it keeps is freed at the switch.

    Args:
        experts: the pair, or one model.
    """

    def __init__(self, experts: Experts):
        self._at = experts.at
        self._turns: dict[str, tuple[Expert, float]] = {"high": (as_expert(experts.high), experts.cfg_high)}
        if experts.low is not None and experts.cfg_low is not None:
            self._turns["low"] = (as_expert(experts.low), experts.cfg_low)
        self._at_work = ""
        self._session: Model | None = None

    def expert_for(self, timestep: float) -> tuple[Model, float]:
        """The model that answers a step that starts at this timestep, and its guidance scale."""
        name = self._at(timestep)
        expert, scale = self._turns[name]
        if self._session is None or name != self._at_work:
            self._session = None  # freed before the next expert opens its own
            self._session, self._at_work = expert.session(), name
        return self._session, scale


def _texts(
    positive: Tensor | Sequence[Tensor], negative: Tensor | Sequence[Tensor] | None
) -> list[tuple[Tensor, Tensor | None]]:
    """(positive, negative) of each velocity: one for all samples, or one a sample."""
    if isinstance(positive, Tensor):
        return [(positive, cast(Tensor | None, negative))]
    return list(zip(positive, [None] * len(positive) if negative is None else negative, strict=True))


def part_of(value: Any, k: int, count: int) -> Any:
    """What sample k of `count` is given: its own part of tensors that hold one for each, all of the others."""
    if isinstance(value, (list, tuple)):
        return [part_of(item, k, count) for item in value]
    return value[k : k + 1] if isinstance(value, Tensor) and value.ndim > 2 and len(value) == count else value


def _stacked_once(texts: Sequence[tuple[Tensor, Tensor | None]]) -> list[Tensor | None]:
    """Each pair of texts as one batch. Equal pairs get the same tensor: models know their texts by identity."""
    made: dict[tuple[int, int], Tensor | None] = {}
    for positive, negative in texts:
        if (id(positive), id(negative)) not in made:
            both = None if negative is None else stack_prompts(positive, negative)
            made[id(positive), id(negative)] = both
    return [made[id(positive), id(negative)] for positive, negative in texts]
