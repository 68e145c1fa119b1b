"""The Wan video VAE."""

from .model import WanVAE

__all__ = ["WanVAE"]
