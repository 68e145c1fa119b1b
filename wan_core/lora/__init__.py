"""LoRA files of every trainer: read, applied to an expert, trained and written."""

from .apply import AppliedLora, LoraStack
from .file import Change, Difference, Lora, LoraReport, LowRank, holds_both, read_lora, target_expert
from .train import add_lora, save_lora

__all__ = [
    "AppliedLora",
    "Change",
    "Difference",
    "Lora",
    "LoraReport",
    "LoraStack",
    "LowRank",
    "add_lora",
    "holds_both",
    "read_lora",
    "save_lora",
    "target_expert",
]
