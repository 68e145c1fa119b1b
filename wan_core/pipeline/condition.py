"""What the experts are given besides text: encoded images, frames and masks, one function a task."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ..conditioning import (
    FirstFrameMask,
    contexts,
    first_frame,
    fun_control,
    fun_inp_5b,
    image_to_video,
    image_tokens,
    vcu,
)
from ..config import Preset
from ..vae import WanVAE
from ..vision import ImageEncoder
from .inputs import Inputs


@dataclass(frozen=True)
class Condition:
    """What the experts are given besides text, and how it changes the latent.

    Attributes:
        y, vace, context_latents, reference_latent, image_embeds: as in `WanDiT.forward`.
        first_frame: the given first frame of a clip of the 5B models.
        references: extra latent frames in front, dropped after sampling.
    """

    y: Tensor | None = None
    vace: Tensor | None = None
    context_latents: tuple[Tensor, ...] = ()
    reference_latent: Tensor | None = None
    image_embeds: Tensor | None = None
    first_frame: FirstFrameMask | None = None
    references: int = 0

    def timesteps(self, t: Tensor, x: Tensor) -> Tensor:
        """What the experts are told at timestep t (B,): t, or (B, L) with 0 at the tokens of a given frame."""
        return t if self.first_frame is None else self.first_frame.timesteps(t, x)

    def constrain(self, x: Tensor) -> Tensor:
        """The latent with a given frame restored."""
        return x if self.first_frame is None else self.first_frame.constrain(x)


@dataclass(frozen=True)
class Loaders:
    """How the parts that encode conditions come to the device; each is called only where there is work for it."""

    vae: Callable[[], WanVAE]
    image_encoder: Callable[[], ImageEncoder]


def encode_condition(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    """Encode the given images, frames and masks for this model's task."""
    return _ENCODE[preset.task](load, preset, inputs)


def _text_to_video(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    return Condition()


def _image_to_video(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    if inputs.image is None:
        return Condition()
    return Condition(y=image_to_video(load.vae(), inputs.image, inputs.request.shape.frames, inputs.last_image))


def _image_to_video_with_clip(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    embeds = image_tokens(load.image_encoder(), inputs.views)
    return replace(_image_to_video(load, preset, inputs), image_embeds=embeds)


def _text_and_image_to_video(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    if inputs.image is None:
        return Condition()
    return Condition(first_frame=FirstFrameMask(first_frame(load.vae(), inputs.image), preset.dit.patch))


def _vace(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    shape = inputs.request.shape
    size = {"frames": shape.frames, "height": shape.height, "width": shape.width}
    context = vcu(load.vae(), inputs.video, inputs.mask, inputs.references, **size)
    return Condition(vace=context, references=len(inputs.references))


def _bernini(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    if inputs.video is None and not inputs.references:
        return Condition()
    return Condition(context_latents=contexts(load.vae(), inputs.video, inputs.references))


def _fun_control(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    vae, image = load.vae(), inputs.image
    y = fun_control(vae, inputs.request.shape, inputs.video, image)
    reference = vae.encode(inputs.references[0][None, :, None]) if inputs.references else None
    start = y[:, -vae.config.z_channels :, :1]
    return Condition(y=y, reference_latent=reference, first_frame=_pinned(preset, None if image is None else start))


def _fun_inp(load: Loaders, preset: Preset, inputs: Inputs) -> Condition:
    vae, image = load.vae(), inputs.image
    y = fun_inp_5b(vae, inputs.request.shape, image, inputs.last_image)
    return Condition(y=y, first_frame=_pinned(preset, None if image is None else y[:, 4:, :1]))


def _pinned(preset: Preset, start: Tensor | None) -> FirstFrameMask | None:
    """The 5B keeps its first frame as it is given; the A14B is told of it by its condition alone."""
    return None if start is None or preset.vae.version == "2.1" else FirstFrameMask(start, preset.dit.patch)


# task → its encoder
_ENCODE: dict[str, Callable[[Loaders, Preset, Inputs], Condition]] = {
    "t2v": _text_to_video,
    "i2v": _image_to_video,
    "ti2v": _text_and_image_to_video,
    "vace": _vace,
    "bernini": _bernini,
    "fun-control": _fun_control,
    "fun-inp": _fun_inp,
    "clip-i2v": _image_to_video_with_clip,
    "clip-flf2v": _image_to_video_with_clip,
}
