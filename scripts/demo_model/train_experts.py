"""The demo model's transformers: a base with its text encoder, a single model for each task, two pairs of experts."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from scripts.demo_model.clips import FRAMES, SCENES, clip
from scripts.demo_model.text import UNCONDITIONAL, captions, encode, encode_together, new_encoder
from wan_core.conditioning import image_to_video
from wan_core.config import PRESETS, DiTConfig
from wan_core.dit import WanDiT
from wan_core.text import UMT5, Tokenizer
from wan_core.training.data import LatentDataset
from wan_core.training.expert import NoiseRange, expert_loss, new_expert, start_from, train_expert
from wan_core.training.run import RunConfig, TrainingRun
from wan_core.vae import WanVAE

CONFIG = DiTConfig(dim=128, ffn_dim=256, heads=1, layers=4, text_dim=128)
CLIPS = 8000  # that are drawn
FIRST_CLIPS, IMAGE_CLIPS = 2000, 1000  # of them: for the first runs, and for image-to-video
BATCH = 32
BASE = RunConfig(3000, 2e-3, 100, seed=11, autocast=True)
BASE_STOP = 1500  # the experts go on from the averaged weights, each with a schedule of its own
BASE_LEVELS = NoiseRange(0.0, 1.0, shift=5.0)
TRAIN_SCENES = tuple(scene for scene in SCENES if not scene.held_out)


@dataclass(frozen=True)
class ExpertStage:
    """One run: which model of which preset, its range of noise, what it starts from, where it is stopped, on what."""

    name: str
    preset: str
    expert: str
    run: RunConfig
    shift: float
    start: str
    until: int | None = None
    clips: int = FIRST_CLIPS

    @property
    def levels(self) -> NoiseRange:
        return NoiseRange.of(self.expert, PRESETS[self.preset].boundary, self.shift)


# Both pairs come from single models over all noise levels, which learn what the experts share only once. With the first
# frame given, a small model learns within a thousand steps to carry an object through time; without it, it did not in
# four thousand. So text-to-video starts from image-to-video. On 2,000 clips its loss at high noise fell to 0.46, and to
# 0.49 on clips that it had not seen; that is why it goes on with more of them.
T2V, I2V = "t2v-a14b", "i2v-a14b"
_I2V_RUN = RunConfig(6000, 1.5e-3, 20, seed=60, autocast=True)
STAGES = (
    ExpertStage("start", T2V, "low", RunConfig(2400, 1.5e-3, 50, seed=13, autocast=True), 3.0, "base", until=2000),
    ExpertStage("i2v-all", I2V, "all", _I2V_RUN, 5.0, "start", until=3000),
    ExpertStage(
        "t2v-start", T2V, "all", RunConfig(8000, 1.5e-3, 20, seed=60, autocast=True), 5.0, "i2v-all", until=500
    ),
    ExpertStage("t2v-all", T2V, "all", RunConfig(5500, 1.2e-3, 20, seed=60, autocast=True), 5.0, "t2v-start"),
    ExpertStage("i2v-all", I2V, "all", _I2V_RUN, 5.0, "start"),  # goes on where it was stopped
    ExpertStage(
        "t2v-more", T2V, "all", RunConfig(11000, 1.2e-3, 20, seed=61, autocast=True), 5.0, "t2v-all", 9750, CLIPS
    ),
    ExpertStage(
        "t2v-high-start", T2V, "high", RunConfig(900, 3e-4, 20, seed=61, autocast=True), 12.0, "t2v-more", clips=CLIPS
    ),
    ExpertStage(
        "t2v-high", T2V, "high", RunConfig(4000, 7e-4, 20, seed=61, autocast=True), 12.0, "t2v-high-start", clips=CLIPS
    ),
    ExpertStage(
        "t2v-low-start", T2V, "low", RunConfig(900, 3e-4, 20, seed=61, autocast=True), 3.0, "t2v-more", clips=CLIPS
    ),
    ExpertStage(
        "t2v-low", T2V, "low", RunConfig(3000, 8e-4, 20, seed=61, autocast=True), 3.0, "t2v-low-start", clips=CLIPS
    ),
    ExpertStage("i2v-high", I2V, "high", RunConfig(800, 3e-4, 20, seed=60, autocast=True), 5.0, "i2v-all"),
    ExpertStage("i2v-low", I2V, "low", RunConfig(800, 3e-4, 20, seed=60, autocast=True), 3.0, "i2v-all"),
)


@dataclass(frozen=True)
class Encoded:
    """The training clips, encoded once. `scene` is a position in TRAIN_SCENES; first frames (N, 3, H, W) uint8."""

    latents: Tensor
    scene: list[int]
    first: Tensor


@torch.no_grad()
def encode_clips(vae: WanVAE, file: Path, seed: int = 21) -> Encoded:
    """Draw and encode the training clips, or read them from `file`."""
    if not file.is_file():
        rng, latents, firsts = random.Random(seed), [], []
        scenes = [k % len(TRAIN_SCENES) for k in range(CLIPS)]
        for start in range(0, CLIPS, 16):
            videos = torch.stack([clip(TRAIN_SCENES[k], rng)[0] for k in scenes[start : start + 16]])
            latents.append(vae.encode(videos))
            firsts.append(((videos[:, :, 0] + 1) * 127.5).round().byte())
        torch.save({"latents": torch.cat(latents), "scene": scenes, "first": torch.cat(firsts)}, file)
    return Encoded(**torch.load(file, weights_only=True))


def train_base(encoded: Encoded, tokenizer: Tokenizer, folder: Path) -> tuple[WanDiT, UMT5]:
    """One transformer over all noise levels, together with the text encoder."""
    model, encoder = new_expert(CONFIG, seed=2), new_encoder(seed=3)
    tokens = [[tokenizer(text)[0][0] for text in captions(scene)] for scene in TRAIN_SCENES]
    nothing = [tokenizer(text)[0][0] for text in UNCONDITIONAL]
    run = TrainingRun(folder / "base", {"dit": model, "text": encoder}, BASE)

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = run.rng()
        clips = [rng.randrange(FIRST_CLIPS) for _ in range(BATCH)]
        ids = [rng.choice(nothing if rng.random() < 0.1 else tokens[encoded.scene[k]]) for k in clips]
        text = encode_together(encoder, ids)
        return {"loss": expert_loss(model, encoded.latents[clips], text, None, BASE_LEVELS, generator)}

    run.train(losses, BASE_STOP)
    run.apply_ema()
    return model, encoder


@torch.no_grad()
def samples(encoded: Encoded, encoder: UMT5, tokenizer: Tokenizer) -> LatentDataset:
    """The clips with their captions as the frozen text encoder reads them."""
    sentences = [captions(scene) for scene in TRAIN_SCENES]
    texts = encode(encoder, tokenizer, [*UNCONDITIONAL, *(text for group in sentences for text in group)])
    each, first = len(sentences[0]), len(UNCONDITIONAL)
    of_scene = [range(first + k * each, first + (k + 1) * each) for k in range(len(sentences))]
    return LatentDataset(encoded.latents, texts, [of_scene[k] for k in encoded.scene], range(first))


@torch.no_grad()
def with_images(data: LatentDataset, encoded: Encoded, vae: WanVAE) -> LatentDataset:
    """The same clips with the condition that image-to-video makes of their first frames."""
    images = encoded.first[:IMAGE_CLIPS].float() / 127.5 - 1
    y = torch.cat([image_to_video(vae, image, FRAMES) for image in images])
    return replace(data.first(IMAGE_CLIPS), y=y)


def train_expert_stage(stage: ExpertStage, data: LatentDataset, start: dict[str, Tensor], folder: Path) -> WanDiT:
    """One stage, from the weights `start`."""
    config = replace(CONFIG, in_channels=PRESETS[stage.preset].dit.in_channels)
    model, data = start_from(new_expert(config, seed=2), start), data.first(stage.clips)
    run = TrainingRun(folder / stage.name, {"dit": model}, stage.run)
    train_expert(model, data, stage.levels, run, BATCH, stage.until)
    return model
