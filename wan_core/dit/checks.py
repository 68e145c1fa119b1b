"""Whether tensors fit a transformer and one another; an InputError names what does not."""

import math
from collections.abc import Sequence

from torch import Tensor

from ..config import DiTConfig
from ..errors import InputError


def check_inputs(config: DiTConfig, x: Tensor, t: Tensor, text: Tensor, y: Tensor | None, vace) -> None:
    """
    Raises:
        InputError: latents, timesteps, a text, an image or a control that do not fit the model or one another.
    """
    for name, tensor in (("x", x), ("y", y)):
        if tensor is not None and tensor.ndim != 5:
            raise InputError(f"{name} of shape {tuple(tensor.shape)}", "a video latent (B, C, T, H, W)")
    found = x.shape[1] + (0 if y is None else y.shape[1])
    if found != config.in_channels:
        raise InputError(
            f"{found} input channels",
            f"{config.in_channels} for this model",
            "Image-to-video models take y= besides x; text-to-video models do not",
        )
    if y is not None and (y.shape[2:] != x.shape[2:] or len(y) not in (1, len(x))):
        raise InputError(
            f"y of shape {tuple(y.shape)} with x of shape {tuple(x.shape)}",
            "equal (T, H, W), and one y or one for each",
        )
    if any(size % patch for size, patch in zip(x.shape[2:], config.patch, strict=True)):
        raise InputError(f"latents of size {tuple(x.shape[2:])}", f"multiples of the patch {config.patch}")
    tokens = math.prod(size // patch for size, patch in zip(x.shape[2:], config.patch, strict=True))
    if t.ndim == 0 or len(t) not in (1, len(x)) or tuple(t.shape[1:]) not in ((), (tokens,)):
        raise InputError(f"t of shape {tuple(t.shape)}", f"({len(x)},) or ({len(x)}, {tokens})")
    if text.ndim != 3 or text.shape[1] > config.text_len or text.shape[2] != config.text_dim:
        raise InputError(
            f"text of shape {tuple(text.shape)}", f"(B, n, {config.text_dim}) with n at most {config.text_len}"
        )
    if vace is not None and not config.vace_layers:
        raise InputError("a VACE condition for a model without a VACE branch", "a VACE checkpoint")
    for control in () if vace is None else [vace] if isinstance(vace, Tensor) else vace:
        if control.ndim != 5 or control.shape[1] != config.vace_channels or control.shape[2:] != x.shape[2:]:
            expected = (len(x), config.vace_channels, *x.shape[2:])
            raise InputError(f"a VACE condition of shape {tuple(control.shape)}", f"{expected}")


def check_streams(
    config: DiTConfig, x: Tensor, contexts: Sequence[Tensor], reference: Tensor | None, image: Tensor | None
) -> None:
    """
    Raises:
        InputError: contexts, a reference or an image that do not fit the model, or that it does not take.
    """
    if config.vace_layers and len(contexts):
        raise InputError("context latents for a VACE model", "a Bernini model", "Give a VACE model its clip as vace=")
    for context in contexts:
        _check_shape("a context latent", context, x, (config.in_channels, None, None, None))
        if any(size % patch for size, patch in zip(context.shape[2:], config.patch, strict=True)):
            raise InputError(f"a context latent of size {tuple(context.shape[2:])}", f"multiples of {config.patch}")
    if reference is not None:
        if not config.reference_channels:
            raise InputError("a reference latent for a model that takes none", "a Fun-Control model with ref_conv")
        _check_shape("a reference latent", reference, x, (config.reference_channels, 1, *x.shape[3:]))
    if image is not None:
        if not config.image_dim:
            raise InputError("image embeddings for a model without an image branch", "Wan2.1 image-to-video")
        _check_shape("image embeddings", image, x, (None, config.image_dim))


def _check_shape(name: str, tensor: Tensor, x: Tensor, needed: tuple[int | None, ...]) -> None:
    """One sample, or as many as x has, of the sizes that are `needed`; None: any but 0."""
    shape, batch = tuple(tensor.shape), "1" if len(x) == 1 else f"1 or {len(x)}"
    fits = len(shape) == len(needed) + 1 and shape[0] in (1, len(x)) and 0 not in shape
    if not fits or any(n not in (None, size) for n, size in zip(needed, shape[1:], strict=True)):
        expected = ", ".join([batch, *("any" if n is None else str(n) for n in needed)])
        raise InputError(f"{name} of shape {shape}", f"({expected})")
