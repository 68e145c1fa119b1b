"""The Wan diffusion transformer."""

from .model import WanDiT

__all__ = ["WanDiT"]
