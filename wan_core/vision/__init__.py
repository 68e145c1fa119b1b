"""What CLIP sees in an image, for the image-to-video models of Wan2.1."""

from .encoder import ImageEncoder

__all__ = ["ImageEncoder"]
