"""Wan2.2 video generation in pure PyTorch: text, images, frames and masks to mp4."""

__all__ = ["WanPipeline", "__version__", "export_to_video"]


def __getattr__(name: str):
    # Imported on first use, so that one part of the library does not load all the others.
    if name == "WanPipeline":
        from .pipeline import WanPipeline

        return WanPipeline
    if name == "export_to_video":
        from .media.mp4 import export_to_video

        return export_to_video
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """The version in pyproject.toml, the one place that states it: beside a clone, else as it was installed."""
    import re
    from importlib.metadata import version
    from pathlib import Path

    project = Path(__file__).parents[1] / "pyproject.toml"
    text = project.read_text("utf-8") if project.is_file() else ""
    stated = re.search(r'^version = "(.+)"$', text, re.M) if 'name = "wan22-moe"' in text else None  # else of others
    return stated[1] if stated else version("wan22-moe")
