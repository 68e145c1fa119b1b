"""Arguments of clips that a tiny model makes in a moment."""

import numpy as np
from PIL import Image

SMALL = dict(height=32, width=48, num_frames=5, num_inference_steps=4, seed=1)
SMALL_5B = SMALL | dict(height=64, width=64)
PROMPTS = ["A red circle moves to the right", "一只猫在雪地里行走，电影光线"]


def picture(width=48, height=32):
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    return Image.fromarray(np.broadcast_to(rows, (height, width, 3)).copy())
