"""TI2V-5B: a clip that starts from an image."""

import torch
from torch import Tensor

from ..vae import WanVAE
from .checks import require_vae


def first_frame(vae: WanVAE, image: Tensor) -> Tensor:
    """The latent of a TI2V-5B clip's first frame.

    Args:
        image: (3, H, W) in [-1, 1].
    Returns:
        z (1, 48, 1, h, w) float32.
    Raises:
        InputError: a VAE without 48 channels.
    """
    require_vae(vae, 48, "TI2V-5B")
    return vae.encode(image[None, :, None])


class FirstFrameMask:
    """The first latent frame of a TI2V-5B clip is given: its tokens are at timestep 0, and it is restored after every
    step.

    Args:
        z: (1, 48, 1, h, w).
        patch: the transformer's patch size.
    Source: Wan2.2 wan/textimage2video.py i2v.
    """

    def __init__(self, z: Tensor, patch: tuple[int, int, int] = (1, 2, 2)):
        self.z, self.patch = z, patch

    def constrain(self, x: Tensor) -> Tensor:
        """x (B, 48, T, h, w) with the given frame in its place."""
        return torch.cat((self.z.to(x).expand(len(x), -1, -1, -1, -1), x[:, :, 1:]), dim=2)

    def timesteps(self, t: Tensor, x: Tensor) -> Tensor:
        """(B,) → (B, L): 0 for the tokens of the given frame, t for the others."""
        frame = (x.shape[3] // self.patch[1]) * (x.shape[4] // self.patch[2])
        tokens = t[:, None].repeat(1, frame * x.shape[2])
        tokens[:, :frame] = 0
        return tokens
