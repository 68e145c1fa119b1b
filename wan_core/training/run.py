"""What every training run shares: seeds, warm-up and decay of the rate, EMA, checkpoints to resume from, a log."""

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import CheckpointError, InputError, NumericalError


@dataclass(frozen=True)
class RunConfig:
    """Numbers of a run.

    Attributes:
        steps: optimiser steps in total. rate: highest learning rate, after `warmup` steps; then a cosine to rate/20.
        ema: decay of the averaged weights at full length; early in the run the average is shorter.
        save_every: steps between checkpoints. seed: of data order, noise and new weights.
        autocast: compute in bfloat16 where torch thinks it safe; weights stay float32.
    """

    steps: int = 1000
    rate: float = 1e-3
    warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    weight_decay: float = 0.0
    save_every: int = 500
    seed: int = 0
    autocast: bool = False

    def rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, …"""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class EMA:
    """Exponential moving average of parameters, held in float32."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self.decay = decay
        self.values = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in parameters.items():
            self.values[name].lerp_(p.detach().float(), 1 - decay)


class TrainingRun:
    """Runs `loss_of(step, generator)` over `steps`, and can be stopped and continued at any checkpoint.

    Args:
        folder: gets `state.pt` (weights, optimiser, average, step) and `log.jsonl` (one line of losses every 10 steps).
        modules: what is trained, by name; only parameters that require a gradient are.
    """

    def __init__(self, folder: str | Path, modules: Mapping[str, nn.Module], config: RunConfig):
        if config.steps < 1:
            raise InputError(f"a training run of {config.steps} steps", "at least 1")
        self.folder, self.modules, self.config = Path(folder), dict(modules), config
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parameters = {
            f"{part}.{name}": p
            for part, m in self.modules.items()
            for name, p in m.named_parameters()
            if p.requires_grad
        }
        if not self.parameters:
            raise InputError("a training run without anything to train", "parameters that require a gradient")
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.average = EMA(self.parameters, config.ema)
        self.step = 0
        self.resume()

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    def resume(self) -> None:
        """Continue from `state.pt` where there is one.

        Raises:
            CheckpointError: it belongs to another model.
        """
        path = self.folder / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if set(state["parameters"]) != set(self.parameters):
            raise CheckpointError(
                f"{path} belongs to another model", "the run that this folder was made for", "Use another folder"
            )
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(state["parameters"][name])
        self.average.values = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def save(self) -> None:
        """Write `state.pt`; an interrupted write leaves the one before."""
        state = {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "average": self.average.values,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        part = self.folder / "state.pt.part"
        torch.save(state, part)
        part.replace(self.folder / "state.pt")

    def generator(self) -> torch.Generator:
        """Random numbers of the present step: the same ones whether or not the run was resumed."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)

    def rng(self) -> random.Random:
        """As `generator`, for choices in Python."""
        return random.Random(self.config.seed * 1_000_003 + self.step)

    def train(
        self,
        losses_of: Callable[[int, torch.Generator], dict[str, Tensor]],
        until: int | None = None,
        after: Iterable[Callable[[int], None]] = (),
    ) -> None:
        """Minimise `losses_of(...)["loss"]`; the other entries are only logged.

        Args:
            until: stop after this step of the schedule; None: at its end.
            after: called with the number of steps done, after each.
        Raises:
            NumericalError: the loss is not finite.
        """
        last, config = until or self.config.steps, self.config
        sums: dict[str, float] = {}
        cast = torch.autocast(self.device.type, torch.bfloat16) if config.autocast else nullcontext()
        with tqdm(total=last, initial=self.step, unit="step", mininterval=5, desc=self.folder.name) as bar:
            while self.step < last:
                for group in self.optimiser.param_groups:
                    group["lr"] = config.rate_at(self.step)
                with torch.enable_grad(), cast:
                    losses = losses_of(self.step, self.generator())
                if not torch.isfinite(losses["loss"]):
                    raise NumericalError(f"the loss of step {self.step} is not finite", fix="Lower the learning rate")
                self.optimiser.zero_grad(set_to_none=True)
                losses["loss"].backward()
                nn.utils.clip_grad_norm_(self.parameters.values(), config.clip)
                self.optimiser.step()
                self.step += 1
                self.average.update(self.parameters, self.step)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach())
                bar.update()
                if self.step % 10 == 0 or self.step == last:
                    self._log(sums)
                    bar.set_postfix(loss=f"{sums['loss'] / 10:.4f}")
                    sums = {}
                if self.step % config.save_every == 0 or self.step == last:
                    self.save()
                for call in after:
                    call(self.step)

    def _log(self, sums: Mapping[str, float]) -> None:
        line = {"step": self.step} | {name: round(value / 10, 6) for name, value in sums.items()}
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    @torch.no_grad()
    def apply_ema(self) -> dict[str, Tensor]:
        """Put the averaged weights in place of the trained ones, which are returned."""
        trained = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.load_parameters(self.average.values)
        return trained

    @torch.no_grad()
    def load_parameters(self, values: Mapping[str, Tensor]) -> None:
        """Give the parameters these values."""
        for name, p in self.parameters.items():
            p.copy_(values[name])
