"""What a model is given besides text: images, first frames, and video-condition units."""

from .conditions import FirstFrameMask, first_frame, image_to_video, vcu

__all__ = ["FirstFrameMask", "first_frame", "image_to_video", "vcu"]
