"""The transformer as a sampling run uses it: brought to the device, and saved from an attention that fails."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..attention import use_attention
from ..dit import WanDiT
from ..flow import Expert
from ..memory import ModelOffloader, OffloadedExpert
from ..ops import sdpa


def expert_in_run(model: WanDiT, offloader: ModelOffloader, successor: WanDiT | None = None) -> Expert:
    """The model as an expert that the offloader loads when it is called.

    Args:
        successor: the expert that will be needed after it, prefetched meanwhile.
    """
    return NaNFallback(OffloadedExpert(model, offloader, successor), model)


class NaNFallback:
    """An expert that goes back to sdpa, for good and with one warning, when its attention returns NaN or infinity.

    Args:
        expert: what answers.
        model: the transformer in it.
    """

    def __init__(self, expert: Expert, model: WanDiT):
        self.expert, self.model = expert, model

    def session(self) -> Callable[..., Tensor]:
        run = self.expert.session()

        def call(*args, **kwargs) -> Tensor:
            block: Any = self.model.blocks[0]
            v, backend = run(*args, **kwargs), block.self_attn.attention
            if backend is sdpa or torch.isfinite(v).all():
                return v
            logging.getLogger(__name__).warning(
                "%s attention returned NaN or infinity; sdpa from here on", backend.__name__
            )
            use_attention(self.model, sdpa)
            return run(*args, **kwargs)

        return call
