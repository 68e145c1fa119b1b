"""The numbers of one generation: what the caller gave, the preset's defaults for the rest, all of it checked."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from typing import Any

from torch import Tensor

from ..config import Preset
from ..errors import InputError, quoted
from ..flow import SOLVERS, Expert, Experts, FlowSchedule, Model
from ..flow.schedule import MAX_SHIFT, MIN_SHIFT
from ..shapes import LONGEST_SEQUENCE, VideoShape, check_shape
from ..validate import real_number, whole_number
from .options import Options

MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Request:
    """Everything that decides a clip, besides the weights and the given images.

    Attributes:
        prompts, negative_prompts, seeds: one entry a sample.
        guidance, guidance_low: of the high-noise expert (or the only model) and of the low-noise expert.
        boundary: None for a single model.
        step_cache: 0 computes every step; see `Experts.velocity`.
        loras: such as "style.safetensors at 0.7 on the high-noise expert".
        context_tokens: tokens of references and of a source video, which the transformer gets besides the clip's.
    """

    model: str
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    shape: VideoShape
    fps: int
    steps: int
    shift: float
    solver: str
    guidance: float
    guidance_low: float | None
    boundary: float | None
    step_cache: float
    loras: tuple[str, ...] = ()
    context_tokens: int = 0

    @classmethod
    def resolve(cls, preset: Preset, options: Options) -> "Request":
        """Fill in the preset's defaults and check every number.

        Raises:
            InputError: naming the argument, its value, and what would be right.
        """
        pair = preset.two_experts
        if not pair and (options.guidance_scale_2 is not None or options.boundary_ratio is not None):
            raise InputError(
                f"guidance_scale_2 or boundary_ratio for {preset.name}, a single model",
                "a pair of experts",
                "Leave them out",
            )
        if options.solver not in SOLVERS:
            raise InputError(f"solver is {quoted(options.solver)}", "one of " + ", ".join(SOLVERS))
        prompts, negatives = _prompts(preset, options)
        guidance_low = _first_given(options.guidance_scale_2, options.guidance_scale, preset.guidance_low)
        boundary = _first_given(options.boundary_ratio, preset.boundary)
        shape = check_shape(
            _first_given(options.num_frames, preset.frames),
            _first_given(options.height, preset.height),
            _first_given(options.width, preset.width),
            preset.vae,
            preset.dit,
        )
        request = cls(
            model=preset.name,
            prompts=prompts,
            negative_prompts=negatives,
            seeds=_seeds(options.seed, len(prompts)),
            shape=shape,
            fps=preset.fps,
            steps=_first_given(options.num_inference_steps, preset.steps),
            shift=real_number("flow_shift", _first_given(options.flow_shift, preset.shift), MIN_SHIFT, MAX_SHIFT),
            solver=options.solver,
            guidance=real_number("guidance_scale", _first_given(options.guidance_scale, preset.guidance), 0),
            guidance_low=real_number("guidance_scale_2", guidance_low, 0) if pair else None,
            boundary=real_number("boundary_ratio", boundary, 0, 1) if pair else None,
            step_cache=real_number("step_cache", _first_given(options.step_cache, 0.0), 0, 1),
        )
        request.schedule()  # checks the number of steps
        return request

    def tokens(self, preset: Preset) -> int:
        """Length of the transformer's sequence."""
        return self.shape.tokens(preset.vae, preset.dit) + self.context_tokens

    def with_context(self, preset: Preset, tokens: int) -> "Request":
        """The same with so many tokens of references and of a source video.

        Raises:
            InputError: more than a sequence can have.
        """
        request = replace(self, context_tokens=tokens)
        if request.tokens(preset) > LONGEST_SEQUENCE:
            raise InputError(
                f"the clip and what it is made from are {request.tokens(preset):,} tokens",
                f"at most {LONGEST_SEQUENCE:,}",
                "Make it smaller or shorter, or give fewer reference_images",
            )
        return request

    def schedule(self) -> FlowSchedule:
        """Noise levels and timesteps."""
        return FlowSchedule.official(self.steps, self.shift, self.solver)

    def experts(self, high: Model | Expert, low: Model | Expert | None) -> Experts:
        """The pair, or the single model, under this request's boundary and guidance."""
        if self.boundary is None:
            return Experts(high, None, cfg_high=self.guidance, cfg_low=self.guidance)
        return Experts(high, low, self.boundary, self.guidance, self.guidance_low)

    def plan(self) -> list[str]:
        """The expert of each step, "high" or "low"; "high" throughout for a single model."""
        return self.experts(_absent, _absent).plan(self.schedule())

    def guided(self) -> bool:
        """Whether any expert has a guidance scale other than 1, and so needs the negative prompt."""
        return any(scale not in (None, 1) for scale in (self.guidance, self.guidance_low))

    def metadata(self, sample: int = 0) -> dict[str, str]:
        """What a video file of this generation records, as strings."""
        settings = asdict(self) | asdict(self.shape)
        for name in ("prompts", "negative_prompts", "seeds", "shape", "context_tokens"):
            del settings[name]
        record = {
            "prompt": self.prompts[sample],
            "negative_prompt": self.negative_prompts[sample],
            "seed": str(self.seeds[sample]),
            "settings": json.dumps(settings),
        }
        return record | {"comment": json.dumps(record | {"settings": settings}, ensure_ascii=False)}


def _absent(x: Tensor, t: Tensor, text: Tensor, **conditions: Any) -> Tensor:
    """In place of a model where only the plan of a run is wanted."""
    raise InputError("a plan cannot be run", "models")


def _first_given(*values: Any) -> Any:
    """The first value that is given."""
    return next((value for value in values if value is not None), None)


def _prompts(preset: Preset, options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Prompts and negative prompts, one of each a sample."""
    prompts = _texts("prompt", options.prompt)
    negatives = _texts("negative_prompt", _first_given(options.negative_prompt, preset.negative_prompt))
    if len(negatives) not in (1, len(prompts)):
        raise InputError(f"{len(negatives)} negative prompts for {len(prompts)} prompts", "one, or one for each")
    return prompts, negatives * len(prompts) if len(negatives) == 1 else negatives


def _texts(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} is {quoted(value)}", "a text, or a list of texts")
    return texts


def _seeds(seed: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    """One seed a sample. One number gives seed, seed + 1, …; None or a negative number draws them."""
    if isinstance(seed, (list, tuple)):
        if len(seed) != count:
            raise InputError(f"{len(seed)} seeds for {count} prompts", "one seed, or one for each")
        return tuple(s for one in seed for s in _seeds(one, 1))
    if seed is None or (isinstance(seed, Integral) and seed < 0):
        return tuple(secrets.randbits(32) for _ in range(count))
    first = whole_number("seed", seed, 0, MAX_SEED)
    return tuple((first + k) % (MAX_SEED + 1) for k in range(count))
