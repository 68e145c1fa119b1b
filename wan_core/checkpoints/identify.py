"""Which of two experts is which: as names or metadata say, else as their predictions suggest."""

import logging
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..conditioning import image_to_video
from ..dit import WanDiT
from ..flow import flow_loss, interpolate, training_timesteps
from ..flow.noise import normal
from ..vae import WanVAE
from .formats import Weights
from .formats.mmap import read_bytes

_LOW, _HIGH = (0.1, 0.2, 0.3, 0.5, 0.7), (0.92, 0.96)  # noise levels on the two sides of every release's boundary
_FRAMES, _SIZE = 17, 64
COMPARED = 4096  # bytes of each tensor that tell one expert from another
_TITLES = ("title", "name", "description")  # where trainers and converters write names into headers


def mentions(word: str, name: str) -> bool:
    """Whether a file name mentions "high" or "low", by itself or in front of "noise"."""
    name = name.lower().replace("_", " ")
    return re.search(rf"(?<![a-z]){word}(?![a-z])|{word}[ -]?noise", name) is not None


def expert_from_name(name: str, metadata: Mapping[str, str]) -> str | None:
    """Which expert a transformer is: "high", "low", or None where nothing says it, or both are named.

    Args:
        name: of its file or folder.
        metadata: of its header, which is asked where the name does not tell.
    """
    for text in (name, _titles(metadata)):
        words = [word for word in ("high", "low") if mentions(word, text)]
        if len(words) == 1:
            return words[0]
    return None


def warn_of_title(expert: Weights, place: str) -> None:
    """Warn where the header's title says another expert than the place, "high" or "low", that its name gave it."""
    said = expert_from_name("", expert.metadata)
    if said not in (None, place):
        logging.getLogger(__name__).warning(
            "%s is taken for the %s-noise expert, as its name or its place says; its header says %s noise (%r)",
            Path(expert.source).name,
            place,
            said,
            _titles(expert.metadata)[:200],
        )


def same_weights(first: Weights, second: Weights) -> bool:
    """Whether the files of two transformers hold the same, as far as the first bytes of every tensor tell.

    The experts of a release differ in the first tensor that is looked at, so of a pair almost nothing is read.

    Raises:
        CheckpointError: a file has been removed since it was opened.
    """
    shapes = [{name: (info.dtype, info.shape) for name, info in weights.info.items()} for weights in (first, second)]
    if shapes[0] != shapes[1] or "memory" in (first.format, second.format):
        return False
    starts = (read_bytes(_first_bytes(weights, shapes[0])) for weights in (first, second))
    return all(map(operator.eq, *starts))


def _first_bytes(weights: Weights, names: Iterable[str]) -> Iterator[tuple[Path, int, int]]:
    """Where the first bytes of each tensor are."""
    for name in names:
        info = weights.info[name]
        if info.file is not None:
            yield info.file, info.offset, min(info.nbytes, COMPARED)


def _titles(metadata: Mapping[str, str]) -> str:
    return " ".join(value for key, value in metadata.items() if key.endswith(_TITLES))


def identify_experts(first: WanDiT, second: WanDiT, vae: WanVAE, names: tuple[str, str]) -> tuple[WanDiT, WanDiT]:
    """(high-noise, low-noise) expert by prediction; a warning with the names of their files says that it is a guess."""
    margin = high_noise_margin(first, second, vae)
    if margin < 0:
        names, first, second = names[::-1], second, first
    logging.getLogger(__name__).warning(
        "neither names nor metadata say which expert is which; by their predictions %s is the high-noise one and %s "
        "the low-noise one. This is a guess (margin %.3f): put 'high' and 'low' into the names",
        *names,
        abs(margin),
    )
    return first, second


@torch.inference_mode()
def high_noise_margin(first: WanDiT, second: WanDiT, vae: WanVAE) -> float:
    """Above 0 where the first looks more like the high-noise expert than the second.

    Each expert was trained on its own side of the boundary, so it predicts better there. The margin is the mean
    logarithm of the ratio of their flow-matching losses on a small clip, at low noise less at high noise. It is a
    guess: 0.008 and 0.09 for the two pairs of the demo model; 0 says nothing.
    """
    video = _moving_disc()
    x0 = vae.encode(video[None])
    extra, y = first.config.in_channels - first.config.out_channels, None
    if first.config.is_image_to_video:
        y = image_to_video(vae, video[:, 0], _FRAMES)
    elif extra:  # Fun-Control, with no control
        y = x0.new_zeros(1, extra, *x0.shape[2:])
    losses = [_losses(model, x0, y) for model in (first, second)]
    ratio = (losses[0] / losses[1]).log()
    return float(ratio[: len(_LOW)].mean() - ratio[len(_LOW) :].mean())


def _losses(model: WanDiT, x0: Tensor, y: Tensor | None) -> Tensor:
    """Flow-matching loss at each noise level, all in one call, so that the weights are read once."""
    sigma = torch.tensor([*_LOW, *_HIGH], dtype=torch.float32, device="cpu")
    noise = normal(x0.shape, torch.Generator().manual_seed(0))
    noisy = interpolate(x0.expand(len(sigma), -1, -1, -1, -1), noise.expand(len(sigma), -1, -1, -1, -1), sigma)
    text = torch.zeros(len(sigma), 1, model.config.text_dim, dtype=torch.float32, device="cpu")
    velocity = model(noisy, training_timesteps(sigma), text, y=y)
    return torch.stack([flow_loss(v[None], x0, noise) for v in velocity])


def _moving_disc() -> Tensor:
    """(3, T, H, W) in [-1, 1]: a disc with a soft edge crosses a plain background."""
    axis = torch.arange(_SIZE, dtype=torch.float32, device="cpu") + 0.5
    x = _SIZE / 2 + 26 * torch.linspace(-0.5, 0.5, _FRAMES, dtype=torch.float32, device="cpu").view(-1, 1, 1)
    distance = ((axis.view(1, 1, -1) - x) ** 2 + (axis.view(1, -1, 1) - _SIZE / 2) ** 2).sqrt() - 12
    cover = (0.5 - distance).clamp(0, 1)
    disc, ground = (
        torch.tensor(colour, dtype=torch.float32, device="cpu").view(3, 1, 1, 1)
        for colour in ((0.9, 0.6, 0.1), (0.1, 0.2, 0.3))
    )
    return 2 * (ground + cover * (disc - ground)) - 1
