"""Frames to mp4 and back: the public names of `wan_core.media`."""

from .media.ffmpeg import find_ffmpeg
from .media.mp4 import export_to_video, write_mp4
from .media.read import read_metadata, read_video

__all__ = ["export_to_video", "find_ffmpeg", "read_metadata", "read_video", "write_mp4"]
