"""Training a transformer: flow matching on cached latents and texts, within one expert's range of noise levels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import DiTConfig
from ..cpu import make_dit
from ..dit import WanDiT
from ..errors import CheckpointError, InputError, quoted
from ..flow import draw_sigmas, flow_loss, interpolate, training_timesteps
from ..flow.noise import normal, uniform
from ..validate import real_number
from .data import LatentDataset
from .run import TrainingRun


@dataclass(frozen=True)
class NoiseRange:
    """Noise levels σ that a model is trained on: shifted-uniform within [low, high]."""

    low: float = 0.0
    high: float = 1.0
    shift: float = 5.0

    @classmethod
    def of(cls, expert: str, boundary: float, shift: float) -> "NoiseRange":
        """Of the "high" or the "low" expert of a pair, or "all" of a single model.

        Raises:
            InputError: another word, or a boundary outside (0, 1).
        """
        real_number("boundary", boundary, 0, 1)
        ranges = {"high": (boundary, 1.0), "low": (0.0, boundary), "all": (0.0, 1.0)}
        if expert not in ranges:
            raise InputError(f"the expert {quoted(expert)}", "high, low or all")
        return cls(*ranges[expert], shift)


def expert_loss(
    model: WanDiT, x0: Tensor, text: Tensor, y: Tensor | None, levels: NoiseRange, generator: torch.Generator
) -> Tensor:
    """Flow-matching loss of a batch at random noise levels within the range."""
    sigma = draw_sigmas(len(x0), levels.shift, levels.low, levels.high, generator)
    noise = normal(x0.shape, generator)
    sigma, noise = sigma.to(x0.device), noise.to(x0)
    return flow_loss(model(interpolate(x0, noise, sigma), training_timesteps(sigma), text, y=y), x0, noise)


def train_expert(
    model: WanDiT, data: LatentDataset, levels: NoiseRange, run: TrainingRun, batch: int, until: int | None = None
) -> None:
    """Run or continue the training of one transformer (or of the LoRA in it); it ends with the averaged weights."""
    device = model.patch_embedding.weight.device

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        x0, text, y = data.draw(batch, generator)
        y = None if y is None else y.to(device)
        return {"loss": expert_loss(model, x0.to(device), text.to(device), y, levels, generator)}

    run.train(losses, until)
    run.apply_ema()


@torch.no_grad()
def initialise_dit(model: WanDiT, generator: torch.Generator) -> WanDiT:
    """Initial weights of the official code. Source: Wan2.2 wan/modules/model.py init_weights."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            weight = module.weight
            bound = math.sqrt(6 / (weight[0].numel() + weight.shape[0]))
            weight.copy_((uniform(weight.shape, generator) * 2 - 1) * bound)
            if module.bias is not None:
                module.bias.zero_()
            if name.startswith(("text_embedding", "time_embedding")):
                weight.copy_(normal(weight.shape, generator) * 0.02)
    model.head.head.weight.zero_()
    for name, p in model.named_parameters():
        if name.endswith("modulation"):
            p.copy_(normal(p.shape, generator) * p.shape[-1] ** -0.5)
    return model


def new_expert(config: DiTConfig, seed: int) -> WanDiT:
    """A transformer to train from nothing."""
    return initialise_dit(make_dit(config).float(), torch.Generator().manual_seed(seed))


@torch.no_grad()
def start_from(model: WanDiT, state: Mapping[str, Tensor]) -> WanDiT:
    """Copy another transformer's weights; input channels that it does not have start at zero, others are left behind.

    So the low-noise expert starts from a single model or from the other expert, an image-to-video model (36
    channels) from a text-to-video one (16), and the other way round.
    Raises:
        CheckpointError: another architecture.
    """
    own = model.state_dict()
    for name, value in own.items():
        given = state.get(name)
        if given is None or (given.shape != value.shape and name != "patch_embedding.weight"):
            raise CheckpointError(f"a checkpoint whose {name} does not fit", f"shape {tuple(value.shape)}")
        if given.shape[1:] != value.shape[1:]:
            shared = min(given.shape[1], value.shape[1])
            value.zero_()
            value[:, :shared] = given[:, :shared]
        else:
            value.copy_(given)
    return model
