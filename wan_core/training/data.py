"""Training data: a folder of clips with captions, `name.mp4` (or an image) beside `name.txt`, and its encoded form."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import load_text_encoder, load_vae
from ..checkpoints.formats import listed
from ..checkpoints.model_files import ModelFiles
from ..checkpoints.tokenizer import open_tokenizer
from ..checkpoints.write import write_state
from ..conditioning import image_to_video
from ..errors import CheckpointNotFound, InputError, quoted
from ..flow.noise import uniform
from ..media.images import clip_info, load_image, load_video
from ..media.resize import resize
from ..memory import typed_oom
from ..shapes import VideoShape
from .run import read_state

VIDEOS, IMAGES = {".mp4", ".mov", ".mkv", ".webm", ".gif"}, {".png", ".jpg", ".jpeg", ".webp"}
UNCONDITIONAL = 0.1  # share of samples whose text is replaced, for guidance (arXiv 2207.12598)


@dataclass(frozen=True)
class LatentDataset:
    """A data set, encoded once.

    Attributes:
        latents: (N, z, T', h, w) normalised.
        texts: embeddings (n_k, text_dim); n varies.
        text_of: for each clip the texts that describe it, as indices into `texts`.
        unconditional: indices of the texts that stand for "no prompt", such as "" and the default negative prompt.
        y: conditions (N, 20, T', h, w) of an image-to-video model.
    """

    latents: Tensor
    texts: Sequence[Tensor]
    text_of: Sequence[Sequence[int]]
    unconditional: Sequence[int]
    y: Tensor | None = None

    def __post_init__(self) -> None:
        if not len(self.latents) or len(self.latents) != len(self.text_of):
            raise InputError(
                f"{len(self.latents)} clips with texts for {len(self.text_of)}", "at least one clip, each with texts"
            )

    def first(self, count: int) -> "LatentDataset":
        """The first clips alone."""
        y = None if self.y is None else self.y[:count]
        return replace(self, latents=self.latents[:count], text_of=self.text_of[:count], y=y)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """x0 (B, z, T', h, w), text (B, n, text_dim) padded with zeros, y or None."""
        clips = torch.randint(len(self.latents), (count,), generator=generator, device="cpu").tolist()
        texts = [self.texts[index] for index in self.draw_texts(clips, generator)]
        return self.latents[clips], pad(texts), None if self.y is None else self.y[clips]

    def draw_texts(self, clips: Sequence[int], generator: torch.Generator) -> list[int]:
        """One text for each clip, or, for a share of them, one that stands for no prompt."""
        drop, which = uniform((2, len(clips)), generator).tolist()
        choices = [
            self.unconditional if d < UNCONDITIONAL else self.text_of[k] for d, k in zip(drop, clips, strict=True)
        ]
        return [choice[int(w * len(choice))] for choice, w in zip(choices, which, strict=True)]


def pad(texts: Sequence[Tensor]) -> Tensor:
    """Embeddings (n_k, D) → (B, n, D); the zeros are what the model pads with itself."""
    return nn.utils.rnn.pad_sequence(list(texts), batch_first=True)


@typed_oom()
def encode_folder(
    folder: str | Path, model: ModelFiles, shape: VideoShape, cache: Path, device: torch.device
) -> LatentDataset:
    """The clips and captions of a folder as latents and embeddings, read from the file `cache` where it fits.

    Raises:
        CheckpointNotFound, InputError: as `list_clips`, `captions_of` and `read_clip`.
        WriteError: the disk is full, or the system refuses.
    """
    clips = list_clips(folder)
    captions = [captions_of(clip) for clip in clips]
    files = [(clip.name, clip.stat().st_size, clip.stat().st_mtime_ns) for clip in clips]
    sources = (shape, model.preset.name, model.vae.source, model.text_encoder.source, captions, files)
    stamp = hashlib.sha256(repr(sources).encode()).hexdigest()
    if cache.is_file():
        state = read_state(cache)
        if state.pop("stamp", None) == stamp:
            return LatentDataset(**state)
    latents, y = _encode_clips(clips, model, shape, device)
    unconditional = ["", model.preset.negative_prompt]
    texts = _encode_texts([*unconditional, *(text for group in captions for text in group)], model, device)
    ends = accumulate(map(len, captions), initial=len(unconditional))
    text_of = [list(range(*bounds)) for bounds in pairwise(ends)]
    data = LatentDataset(latents, texts, text_of, list(range(len(unconditional))), y)
    write_state({field.name: getattr(data, field.name) for field in fields(data)} | {"stamp": stamp}, cache)
    return data


@torch.no_grad()
def _encode_clips(
    clips: Sequence[Path], model: ModelFiles, shape: VideoShape, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """(latents, y) as in LatentDataset.

    Raises:
        InputError: images among clips of several frames.
    """
    images = [file for file in clips if file.suffix.lower() in IMAGES]
    if shape.frames > 1 and 0 < len(images) < len(clips):
        raise InputError(
            f"{images[0].name} is an image among clips of {shape.frames} frames",
            "clips alone, or images alone",
            "Put the images into a folder of their own, or pass --frames 1",
        )
    vae = load_vae(model.vae, model.preset.vae, device=device)
    latents, y = [], []
    for file in clips:
        clip = read_clip(file, shape.frames, shape.height, shape.width).to(device)
        latents.append(vae.encode(clip[None]).cpu())
        if model.preset.task == "i2v":
            y.append(image_to_video(vae, clip[:, 0], clip.shape[1]).cpu())
    return torch.cat(latents), torch.cat(y) if y else None


@torch.no_grad()
def _encode_texts(texts: Sequence[str], model: ModelFiles, device: torch.device) -> list[Tensor]:
    """Embeddings (n_k, text_dim), float32."""
    encoder = load_text_encoder(model.text_encoder, model.preset.text, device=device)
    tokenizer = open_tokenizer(model.tokenizer, model.preset.dit.text_len)
    return [encoder(*(x.to(device) for x in tokenizer(text)))[0].float().cpu() for text in texts]


def list_clips(folder: str | Path) -> list[Path]:
    """The clips and images of a folder, in the order of their names.

    Raises:
        CheckpointNotFound: no such folder, or nothing in it.
    """
    folder = Path(folder)
    try:
        files = [file for file in listed(folder) if file.suffix.lower() in VIDEOS | IMAGES] if folder.is_dir() else []
    except (OSError, ValueError) as error:  # no permission, or no possible name
        raise CheckpointNotFound(f"{quoted(str(folder))} cannot be read ({error})", "a folder with clips") from error
    if not files:
        raise CheckpointNotFound(
            f"{folder} has no clips", "a folder with videos or images, and a .txt caption beside each"
        )
    return files


def captions_of(clip: Path) -> list[str]:
    """The captions of a clip: one a line in the .txt file of its name.

    Raises:
        InputError: there is none.
    """
    file = clip.with_suffix(".txt")
    try:
        text = file.read_text("utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text in UTF-8", "captions in UTF-8, one a line") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{clip.name} has no caption", f"its description in {file.name}")
    return lines


def read_clip(file: Path, frames: int | None = None, height: int | None = None, width: int | None = None) -> Tensor:
    """The first `frames` frames (3, T, H, W) in [-1, 1], resized; an image is a clip of one frame.

    Args:
        frames, height, width: None: as in the file.
    Raises:
        InputError: a clip that is too short.
    """
    if file.suffix.lower() in IMAGES:
        image = load_image(str(file))
        return resize(image, height or image.shape[1], width or image.shape[2])[:, None]
    found, own_height, own_width = clip_info(str(file))
    if frames is not None and found < frames:
        raise InputError(
            f"{file.name} has {found} frames", f"at least {frames}", "Remove it, or pass a smaller --frames"
        )
    return load_video(str(file), frames or found, height or own_height, width or own_width)


def crops(clips: Sequence[Tensor], count: int, frames: int, side: int, rng: random.Random) -> Tensor:
    """Random cut-outs (B, 3, T, side, side) of clips (3, T, H, W) that are long enough.

    Raises:
        InputError: no clip has so many frames.
    """
    long_enough = [clip for clip in clips if clip.shape[1] >= frames]
    if not long_enough or min(min(clip.shape[2:]) for clip in long_enough) < side:
        raise InputError(
            f"no clips of {frames} frames and {side} pixels", "longer or larger clips", "Pass smaller numbers"
        )
    cut = []
    for _ in range(count):
        clip = rng.choice(long_enough)
        sizes = zip(clip.shape[1:], (frames, side, side), strict=True)
        t, y, x = (rng.randrange(size - part + 1) for size, part in sizes)
        cut.append(clip[:, t : t + frames, y : y + side, x : x + side])
    return torch.stack(cut)
