"""Sizes and presets as frozen dataclasses, each number with its source."""

from .presets import (
    MARKS,
    NEGATIVE_PROMPT,
    PRESETS,
    SOLVERS,
    TRAIN_TIMESTEPS,
    USE_COMFYUI,
    Preset,
    is_fun_control_21,
    preset_for,
    presets_like,
)
from .sizes import DiTConfig, ImageEncoderConfig, TextConfig, VAEConfig

__all__ = [
    "MARKS",
    "NEGATIVE_PROMPT",
    "PRESETS",
    "SOLVERS",
    "TRAIN_TIMESTEPS",
    "USE_COMFYUI",
    "DiTConfig",
    "ImageEncoderConfig",
    "Preset",
    "TextConfig",
    "VAEConfig",
    "is_fun_control_21",
    "preset_for",
    "presets_like",
]
