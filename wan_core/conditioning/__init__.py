"""What a model is given besides text: images, first frames, and video-condition units."""

from .i2v import frame_mask, image_to_video
from .ti2v import FirstFrameMask, first_frame
from .vace import mask_channels, vcu

__all__ = ["FirstFrameMask", "first_frame", "frame_mask", "image_to_video", "mask_channels", "vcu"]
