"""What the experts are given besides text: encoded images, frames and masks."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..conditioning import FirstFrameMask, first_frame, image_to_video, vcu
from ..config import Preset
from ..vae import WanVAE
from .inputs import Inputs


@dataclass(frozen=True)
class Condition:
    """What the experts are given besides text, and how it changes the latent.

    Attributes:
        y, vace: as in `WanDiT.forward`.
        first_frame: the given first frame of a TI2V-5B clip.
        references: extra latent frames in front, dropped after sampling.
    """

    y: Tensor | None = None
    vace: Tensor | None = None
    first_frame: FirstFrameMask | None = None
    references: int = 0

    def timesteps(self, t: Tensor, x: Tensor) -> Tensor:
        """What the experts are told at timestep t (B,): t, or (B, L) with 0 at the tokens of a given frame."""
        return t if self.first_frame is None else self.first_frame.timesteps(t, x)

    def constrain(self, x: Tensor) -> Tensor:
        """The latent with a given frame restored."""
        return x if self.first_frame is None else self.first_frame.constrain(x)


def encode_condition(load_vae: Callable[[], WanVAE], preset: Preset, inputs: Inputs) -> Condition:
    """Encode the given images, frames and masks for this model's task.

    Args:
        load_vae: brings the VAE to the device; called only where there is something to encode.
    """
    shape = inputs.request.shape
    if preset.task == "vace":
        size = {"frames": shape.frames, "height": shape.height, "width": shape.width}
        context = vcu(load_vae(), inputs.video, inputs.mask, inputs.references, **size)
        return Condition(vace=context, references=len(inputs.references))
    if inputs.image is None:
        return Condition()
    if preset.task == "i2v":
        return Condition(y=image_to_video(load_vae(), inputs.image, shape.frames, inputs.last_image))
    return Condition(first_frame=FirstFrameMask(first_frame(load_vae(), inputs.image), preset.dit.patch))
