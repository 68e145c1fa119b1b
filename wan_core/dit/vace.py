"""The VACE branch: a few extra blocks that turn a video-condition unit into residuals for the main blocks."""

from typing import NamedTuple

from torch import Tensor

from ..config import DiTConfig
from ..ops import Attention
from .layers import Block, CrossAttnKV, Modulation


class VaceState(NamedTuple):
    """One VACE condition on its way through the control branch."""

    tokens: Tensor  # (B, L, D)
    scale: float


class VaceBlock(Block):
    """A block of the control branch; the first one also joins control and video tokens.

    Source: Wan2.1 wan/modules/vace_model.py VaceWanAttentionBlock.
    """

    def __init__(self, config: DiTConfig, ops, attention: Attention, first: bool):
        super().__init__(config, ops, attention)
        if first:
            self.before_proj = ops.Linear(config.dim, config.dim)
        self.after_proj = ops.Linear(config.dim, config.dim)

    def join(self, control: Tensor, x: Tensor, dtype) -> Tensor:
        """Control tokens that enter the branch: control and video tokens, both (B, L, D), as one."""
        return self.before_proj(control.to(dtype)) + x

    def vace_residual(self, control: Tensor, mod: Modulation, rope: Tensor, text: CrossAttnKV) -> tuple[Tensor, Tensor]:
        """The next control tokens, and what to add to the video tokens, both (B, L, D)."""
        control = self(control, mod, rope, text)
        return control, self.after_proj(control.to(text.k.dtype))
