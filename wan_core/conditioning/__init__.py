"""What a model is given besides text: images, first frames, controls, contexts, and video-condition units."""

from .bernini import contexts
from .fun import fun_control, fun_inp_5b
from .i2v import frame_mask, image_to_video, image_tokens
from .ti2v import FirstFrameMask, first_frame
from .vace import mask_channels, vcu

__all__ = [
    "FirstFrameMask",
    "contexts",
    "first_frame",
    "frame_mask",
    "fun_control",
    "fun_inp_5b",
    "image_to_video",
    "image_tokens",
    "mask_channels",
    "vcu",
]
