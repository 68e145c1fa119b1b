"""What a sampling run asks of a model."""

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x, t) → v, all that a solver knows of models


class Model(Protocol):
    """A velocity model: (x, t, text) → velocity of x's shape. It is given y, vace and vace_scale if there are any."""

    def __call__(self, x: Tensor, t: Tensor, text: Tensor, **conditions) -> Tensor: ...


@runtime_checkable
class Expert(Protocol):
    """A model that can be opened for one sampling run."""

    def session(self) -> Model:
        """The model for one run; it may keep what does not change between steps (text projections, rotary tables)."""
        ...


class StatelessExpert:
    """A plain function as an expert: it keeps nothing between steps.

    Args:
        model: any callable of a model's form.
    """

    def __init__(self, model: Model):
        self.model = model

    def session(self) -> Model:
        return self.model


def as_expert(model: Model | Expert) -> Expert:
    """The model itself where it opens sessions, else the function wrapped."""
    return model if isinstance(model, Expert) else StatelessExpert(cast(Model, model))
