"""Fun-Control and Fun-InP: a control video and a start frame; the first and the last frame of a 5B clip."""

import torch
from torch import Tensor

from ..shapes import VideoShape
from ..vae import WanVAE
from .i2v import frame_mask, given_frames


def fun_control(vae: WanVAE, shape: VideoShape, video: Tensor | None = None, image: Tensor | None = None) -> Tensor:
    """Condition of a Fun-Control model: latent of the control, 4 mask channels (1 = given), latent of the start frame.

    What is not given is zero, as are the latent frames behind the start.

    Args:
        video: the control (3, T, H, W) in [-1, 1].
        image: the start frame (3, H, W) in [-1, 1].
    Returns:
        y (1, z + 4 + z, T', h, w) float32: 36 channels, of the 5B 100.
    Source: ComfyUI comfy_extras/nodes_wan.py Wan22FunControlToVideo.
    """
    control, start = torch.zeros(2, 1, *shape.latent(vae.config), dtype=torch.float32, device=vae.device)
    if video is not None:
        control = vae.encode(video[None])
    if image is not None:
        start = torch.cat((vae.encode(image[None, :, None]), start[:, :, 1:]), dim=2)
    mask = frame_mask(shape.frames, 0 if image is None else 1).to(start.device)
    return torch.cat((control, mask.expand(-1, -1, -1, *start.shape[3:]), start), dim=1)


def fun_inp_5b(vae: WanVAE, shape: VideoShape, image: Tensor | None = None, last_image: Tensor | None = None) -> Tensor:
    """Condition of Fun-InP 5B: 4 mask channels (1 = given), then 48 of the clip with grey where no frame is given.

    Without any frame all of it is zero.

    Args:
        image, last_image: (3, H, W) in [-1, 1], first and last frame.
    Returns:
        y (1, 52, T', h, w) float32.
    Source: VideoX-Fun videox_fun/pipeline/pipeline_wan2_2_fun_inpaint.py; ComfyUI WanFunInpaintToVideo.
    """
    z, *size = shape.latent(vae.config)
    if image is None and last_image is None:
        return torch.zeros(1, 4 + z, *size, dtype=torch.float32, device=vae.device)
    return given_frames(vae, shape.frames, image, last_image)
