"""What every training run shares: seeds, learning-rate schedule, EMA, checkpoints to resume from, a log."""

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ..checkpoints.write import write_state
from ..errors import CheckpointError, InputError, NumericalError, excerpt
from ..memory import typed_oom

Losses = Callable[[int, torch.Generator], dict[str, Tensor]]
Tensors = list[Tensor] | tuple[Tensor, ...]
LOG_EVERY = 10
FINAL_LR = 0.05  # where the cosine ends, as a share of the highest learning rate


@dataclass(frozen=True)
class RunConfig:
    """Numbers of a run.

    Attributes:
        steps: optimiser steps in total. lr: highest learning rate, after `warmup` steps; then a cosine to lr/20.
        ema: decay of the averaged weights at full length; early in the run the average is shorter.
        clip: largest norm of the gradient. save_every: steps between checkpoints.
        seed: of data order, noise and new weights.
        autocast: compute in bfloat16 where torch thinks it safe; weights stay float32.
    """

    steps: int = 1000
    lr: float = 1e-3
    warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    weight_decay: float = 0.0
    save_every: int = 500
    seed: int = 0
    autocast: bool = False

    def lr_factor(self, step: int) -> float:
        """Learning rate of step 0, 1, … as a share of `lr`.

        The schedule of LinearLR and CosineAnnealingLR one after the other. Those compute each rate from the one before;
        this one needs the step alone, so that a resumed run may be given other `steps`.
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def ema_with_warmup(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """`multi_avg_fn` of an AveragedModel whose decay after k updates is at most (1 + k) / (10 + k)."""

    def update(averages: Tensors, parameters: Tensors, updates: Tensor | int) -> None:
        k = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + k) / (10 + k)))(averages, parameters, updates)

    return update


class TrainingRun:
    """Minimises losses over `config.steps`, and can be stopped and continued at any checkpoint.

    Args:
        folder: gets `state.pt` (weights, optimiser, EMA, step) and `log.jsonl` (mean losses every 10 steps).
        modules: what is trained, by name; only parameters that require a gradient are. They are float32.
    """

    def __init__(self, folder: str | Path, modules: Mapping[str, nn.Module], config: RunConfig):
        if config.steps < 1:
            raise InputError(f"a training run of {config.steps} steps", "at least 1")
        self.folder, self.config = Path(folder), config
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parameters = {
            f"{part}.{name}": p for part, m in modules.items() for name, p in m.named_parameters() if p.requires_grad
        }
        if not self.parameters:
            raise InputError("a training run without anything to train", "parameters that require a gradient")
        self.device = next(iter(self.parameters.values())).device
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self._trained = nn.ParameterList(self.parameters.values())
        self.ema = AveragedModel(self._trained, multi_avg_fn=ema_with_warmup(config.ema))
        self.ema.update_parameters(self._trained)  # the initial weights are the first of the average
        self.step = 0
        self._resume()
        for group in self.optimiser.param_groups:
            group["initial_lr"] = config.lr
        self.schedule = LambdaLR(self.optimiser, config.lr_factor, last_epoch=self.step - 1)

    @property
    def average(self) -> dict[str, Tensor]:
        """The averaged weights, by name."""
        return dict(zip(self.parameters, self.ema.module.parameters(), strict=True))

    def _resume(self) -> None:
        """Continue from `state.pt` where there is one.

        Raises:
            CheckpointError: it belongs to another model.
        """
        path = self.folder / "state.pt"
        if not path.is_file():
            return
        state = read_state(path, self.device)
        if set(state.get("parameters", ())) != set(self.parameters):
            raise CheckpointError(
                f"{path} belongs to another model", "the run that this folder was made for", "Use another folder"
            )
        self.load_parameters(state["parameters"])
        _copy(state["average"], self.average)
        self.ema.n_averaged.fill_(state["step"] + 1)  # the initial weights, and those after each step
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def save(self) -> None:
        """Write `state.pt`; an interrupted write leaves the one before.

        Raises:
            WriteError: the disk is full, or the system refuses.
        """
        state = {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "average": {name: p.detach() for name, p in self.average.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        write_state(state, self.folder / "state.pt")

    def generator(self) -> torch.Generator:
        """Random numbers of the present step: the same ones whether or not the run was resumed."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)

    def rng(self) -> random.Random:
        """As `generator`, for choices in Python."""
        return random.Random(self.config.seed * 1_000_003 + self.step)

    @typed_oom()
    def train(self, losses_of: Losses, until: int | None = None, after: Iterable[Callable[[int], None]] = ()) -> None:
        """Minimise `losses_of(step, generator)["loss"]`; the other entries are only logged.

        Args:
            until: stop after this step of the schedule; None: at its end.
            after: called with the number of steps done, after each.
        Raises:
            NumericalError: the loss is not finite. OutOfMemory: the device ran out of memory.
        """
        last, sums = until or self.config.steps, dict[str, float]()
        with tqdm(total=last, initial=self.step, unit="step", mininterval=5, desc=self.folder.name) as bar:
            while self.step < last:
                for name, value in self._train_step(losses_of).items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach())
                bar.update()
                if self.step % LOG_EVERY == 0 or self.step == last:
                    self._log(sums)
                    bar.set_postfix(loss=f"{sums['loss'] / LOG_EVERY:.4f}")
                    sums = {}
                if self.step % self.config.save_every == 0 or self.step == last:
                    self.save()
                for call in after:
                    call(self.step)

    def _train_step(self, losses_of: Losses) -> dict[str, Tensor]:
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.config.autocast else nullcontext()
        with torch.enable_grad(), cast:
            losses = losses_of(self.step, self.generator())
        if not torch.isfinite(losses["loss"]):
            raise NumericalError(f"the loss of step {self.step} is not finite", fix="Lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        self.optimiser.step()
        self.schedule.step()
        self.ema.update_parameters(self._trained)
        self.step += 1
        return losses

    def _log(self, sums: Mapping[str, float]) -> None:
        line = {"step": self.step} | {name: round(value / LOG_EVERY, 6) for name, value in sums.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def apply_ema(self) -> dict[str, Tensor]:
        """Put the averaged weights in place of the trained ones, which are returned."""
        trained = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.load_parameters(self.average)
        return trained

    def load_parameters(self, values: Mapping[str, Tensor]) -> None:
        """Give the parameters these values."""
        _copy(values, self.parameters)


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A dict that an earlier run has written with `torch.save`.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises nothing narrower
        raise CheckpointError(
            f"{path} cannot be read ({excerpt(error)})", "what an earlier run has written", "Delete it"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is of another program", "what an earlier run has written", "Move it away")
    return state


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    for name, p in parameters.items():
        p.copy_(values[name])
