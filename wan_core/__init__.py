"""Wan2.2 video generation in pure PyTorch: text, images, frames and masks to mp4."""

__version__ = "0.1.0"
__all__ = ["WanPipeline", "__version__", "export_to_video"]


def __getattr__(name: str):
    # Imported on first use, so that one part of the library does not load all the others.
    if name == "WanPipeline":
        from .pipeline import WanPipeline

        return WanPipeline
    if name == "export_to_video":
        from .media.mp4 import export_to_video

        return export_to_video
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
