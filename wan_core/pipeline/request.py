"""The numbers of one generation: what the caller gave, the preset's defaults for the rest, all of it checked."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral

from ..config import Preset
from ..errors import InputError
from ..flow import SOLVERS, Experts, FlowSchedule
from ..flow.schedule import MAX_SHIFT, MIN_SHIFT
from ..shapes import VideoShape, check_shape
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

    @classmethod
    def resolve(
        cls,
        preset: Preset,
        prompt: str | Sequence[str] | Options = "",
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_scale_2: float | None = None,
        boundary_ratio: float | None = None,
        flow_shift: float | None = None,
        solver: str = "unipc",
        seed: int | Sequence[int] | None = None,
        step_cache: float | None = None,
    ) -> "Request":
        """Fill in the preset's defaults and check every number.

        Args: as in `WanPipeline.__call__`.
        Raises:
            InputError: naming the argument, its value, and what would be right.
        """

        if isinstance(prompt, Options):
            images = ("image", "last_image", "video", "mask", "reference_images")
            return cls.resolve(preset, **{name: value for name, value in vars(prompt).items() if name not in images})

        def given(value, default):
            return default if value is None else value

        prompts = _texts("prompt", prompt)
        negatives = _texts("negative_prompt", given(negative_prompt, preset.negative_prompt))
        if len(negatives) not in (1, len(prompts)):
            raise InputError(f"{len(negatives)} negative prompts for {len(prompts)} prompts", "one, or one for each")
        low = given(guidance_scale_2, given(guidance_scale, preset.guidance_low))
        if not preset.two_experts and (guidance_scale_2 is not None or boundary_ratio is not None):
            raise InputError(
                f"guidance_scale_2 or boundary_ratio for {preset.name}, a single model",
                "a pair of experts",
                "Leave them out",
            )
        if solver not in SOLVERS:
            raise InputError(f"solver is {solver!r}", "one of " + ", ".join(SOLVERS))
        request = cls(
            model=preset.name,
            prompts=prompts,
            negative_prompts=negatives * len(prompts) if len(negatives) == 1 else negatives,
            seeds=_seeds(seed, len(prompts)),
            shape=check_shape(
                given(num_frames, preset.frames),
                given(height, preset.height),
                given(width, preset.width),
                preset.vae,
                preset.dit,
            ),
            fps=preset.fps,
            steps=given(num_inference_steps, preset.steps),
            shift=real_number("flow_shift", given(flow_shift, preset.shift), MIN_SHIFT, MAX_SHIFT),
            solver=solver,
            guidance=real_number("guidance_scale", given(guidance_scale, preset.guidance), 0),
            guidance_low=real_number("guidance_scale_2", low, 0) if preset.two_experts else None,
            boundary=real_number("boundary_ratio", given(boundary_ratio, preset.boundary), 0, 1)
            if preset.two_experts
            else None,
            step_cache=real_number("step_cache", given(step_cache, 0.0), 0, 1),
        )
        request.schedule()  # checks the number of steps
        return request

    def schedule(self) -> FlowSchedule:
        return FlowSchedule.official(self.steps, self.shift, self.solver)

    def experts(self, high=None, low=None) -> Experts:
        """The pair under this request's boundary and guidance; without models it can still `plan`."""
        if self.boundary is None:
            return Experts(high, None, cfg_high=self.guidance, cfg_low=self.guidance)
        return Experts(high, low or _absent, self.boundary, self.guidance, self.guidance_low)

    def plan(self) -> list[str]:
        """The expert of each step, "high" or "low"; "high" throughout for a single model."""
        return self.experts().plan(self.schedule())

    def guided(self) -> bool:
        """Whether any expert has a guidance scale other than 1, and so needs the negative prompt."""
        return any(scale not in (None, 1) for scale in (self.guidance, self.guidance_low))

    def metadata(self, sample: int = 0) -> dict[str, str]:
        """What a video file of this generation records, as strings."""
        settings = asdict(self) | asdict(self.shape)
        for name in ("prompts", "negative_prompts", "seeds", "shape"):
            del settings[name]
        record = {
            "prompt": self.prompts[sample],
            "negative_prompt": self.negative_prompts[sample],
            "seed": str(self.seeds[sample]),
            "settings": json.dumps(settings),
        }
        return record | {"comment": json.dumps(record | {"settings": settings}, ensure_ascii=False)}


def _absent(*args, **kwargs):
    raise InputError("a plan cannot be run", "models")


def _texts(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} is {value!r}", "a text, or a list of texts")
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
