"""The demo model's VAE: single frames first, then clips, then whole clips; the script that made the shipped file."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from scripts.demo_model.clips import (
    BACKGROUNDS,
    COLOURS,
    FRAMES,
    MOTIONS,
    SCENES,
    SHAPES,
    SIZE,
    TRAVEL,
    Placement,
    clip,
    draw,
)
from wan_core.config import VAEConfig
from wan_core.training.run import RunConfig, TrainingRun
from wan_core.training.vae import VAELoss, VAELossWeights, moments, new_vae, reconstruct
from wan_core.vae import WanVAE

CONFIG = VAEConfig(dim=8, decoder_dim=8)


@dataclass(frozen=True)
class Stage:
    """One part of the run. `mix`: (share, batch, frames, side of the square that is cut out)."""

    name: str
    run: RunConfig
    mix: tuple[tuple[float, int, int, int], ...]
    weights: VAELossWeights = field(default_factory=VAELossWeights)
    decoder_only: bool = False
    until: int | None = None  # stopped before the end of its schedule


STAGES = (
    Stage("frames", RunConfig(3000, 3e-3, 50, seed=1, save_every=100), ((1.0, 32, 1, 32),), until=2000),
    Stage(
        "clips",
        RunConfig(2200, 1.5e-3, 50, seed=2, save_every=200),
        ((0.2, 24, 1, 32), (0.4, 6, 5, 32), (0.4, 4, 9, 32)),
    ),
    Stage(
        "decoder",
        RunConfig(1200, 1e-3, 50, seed=3),
        ((0.2, 8, 1, 64), (0.6, 2, 9, 64), (0.2, 1, 17, 64)),
        decoder_only=True,
    ),
)


def _colour(rng: random.Random, table) -> tuple[float, float, float]:
    """One of the table, or any."""
    if rng.random() < 0.5:
        return rng.choice(list(table.values()))[1]
    return tuple(rng.random() for _ in range(3))


def batch(rng: random.Random, count: int, frames: int, side: int) -> tuple[Tensor, Tensor]:
    """Clips (B, 3, T, side, side) around the object, and its coverage (B, 1, T, side, side)."""
    videos, covers = [], []
    for _ in range(count):
        motion = rng.choice(list(MOTIONS))
        place = Placement.draw(rng, motion)
        drawn = draw(rng.choice(list(SHAPES)), motion, place, _colour(rng, COLOURS), _colour(rng, BACKGROUNDS))
        start = rng.randrange(FRAMES - frames + 1)
        step = (start + frames / 2) / FRAMES - 0.5
        window = [slice(None), slice(start, start + frames)]
        for centre, direction in ((place.y, MOTIONS[motion][2][1]), (place.x, MOTIONS[motion][2][0])):
            middle = int(centre + direction * TRAVEL * step) - side // 2 + rng.randint(-10, 10)
            first = min(max(middle, 0), SIZE - side)
            window.append(slice(first, first + side))
        videos.append(drawn[0][tuple(window)])
        covers.append(drawn[1][tuple(window)])
    return torch.stack(videos), torch.stack(covers)


def inside_psnr(decoded: Tensor, video: Tensor, cover: Tensor) -> float:
    """PSNR in dB over the pixels that the object covers wholly; videos in [-1, 1] are taken as [0, 1]."""
    inside = (cover > 0.99).float()
    error = ((decoded.clamp(-1, 1) - video) / 2).square() * inside
    return float(-10 * (error.sum() / (3 * inside.sum())).log10())


@torch.no_grad()
def judge(vae: WanVAE, frames: int = FRAMES, count: int = 12) -> tuple[float, float]:
    """PSNR inside the object in the first and the last frame of clips that training does not draw."""
    video, cover = batch(random.Random(123_456), count, frames, SIZE)
    decoded = reconstruct(vae, moments(vae, video)[0])
    return tuple(inside_psnr(decoded[:, :, k], video[:, :, k], cover[:, :, k]) for k in (0, -1))


def train_vae_stage(vae: WanVAE, stage: Stage, folder: Path) -> None:
    """Run or continue one stage; `vae` ends with the averaged weights."""
    frozen = (vae.encoder, vae.conv1) if stage.decoder_only else ()
    for module in frozen:
        module.requires_grad_(False)
    run = TrainingRun(folder / f"vae-{stage.name}", {"vae": vae}, stage.run)
    loss = VAELoss(stage.weights)
    shares = [share for share, *_ in stage.mix]

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = run.rng()
        ((_, *size),) = rng.choices(stage.mix, shares)
        video, cover = batch(rng, *size)
        return loss(vae, (video, 1 + 4 * cover), step, generator)

    def report(step: int) -> None:
        if step % 200 == 0:
            frames = 1 if stage.name == "frames" else FRAMES
            trained = run.apply_ema()
            first, last = judge(vae, frames)
            run.load_parameters(trained)
            print(f"vae {stage.name} {step}: inside the object {first:.2f} dB, last frame {last:.2f} dB", flush=True)

    run.train(losses, stage.until, (report,))
    run.apply_ema()


def named_batch(rng: random.Random, count: int) -> Tensor:
    """Whole clips (B, 3, T, H, W) in the colours that have names."""
    return torch.stack([clip(rng.choice(SCENES), rng)[0] for _ in range(count)])


def train(folder: Path) -> WanVAE:
    """Encoder and decoder, from nothing."""
    vae = new_vae(CONFIG, seed=1)
    for stage in STAGES[:2]:
        train_vae_stage(vae, stage, folder)
    return vae


def train_decoder(vae: WanVAE, folder: Path) -> None:
    """The decoder alone, on whole frames, after the latents are settled."""
    train_vae_stage(vae, STAGES[2], folder)
