"""Train on a folder of clips. A run can be stopped and continued with the same command. See docs/training.md."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, quoted
from . import OK

if TYPE_CHECKING:
    import torch

    from ..checkpoints.model_files import ModelFiles
    from ..config import Preset
    from ..dit import WanDiT
    from ..training.expert import NoiseRange
    from ..training.run import RunConfig
    from ..vae.losses import Perceptual

NAME = "train"
HELP = "train a VAE, an expert or a LoRA on a folder of clips"

# Least and largest of each number; those of the schedule and of a clip's size are checked where they belong.
_WHOLE = {
    **dict.fromkeys(("steps", "batch", "save_every"), (1, 2**31)),
    **dict.fromkeys(("image_steps", "gan_from"), (0, 2**31)),
    "dim": (1, 1024),
    "frames": (1, 2**16),
    "side": (8, 2**14),
    "seed": (-(2**43), 2**43),  # a step's own seed, of 64 bits, is this times a million
}
_REAL = {"lr": (1e-12, 1.0), "ema": (0.0, 1.0), "kl": (0.0, 1e6), "alpha": (1e-6, 1e6), "shift": (1e-3, 1e3)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the three trainers."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="what", help="vae, expert or lora")
    vae = kinds.add_parser(
        "vae", help="a VAE, from nothing", description="Train a 2.1 VAE on frames and clips of a folder."
    )
    _add_vae(vae)
    _add_run(vae, lr=1e-3, batch=8)
    for name, what in (("expert", "one transformer"), ("lora", "a LoRA for one transformer")):
        expert = kinds.add_parser(name, help=what, description=f"Train {what} on clips with captions.")
        _add_transformer(expert)
        if name == "expert":
            expert.add_argument(
                "--start", metavar="FILE", help="transformer to start from (default: the model's own expert)"
            )
            expert.add_argument("--new", action="store_true", help="start from random weights")
        else:
            expert.add_argument("--rank", type=int, default=16, help="default: %(default)s")
            expert.add_argument("--alpha", type=float, help="default: the rank")
        _add_run(expert, lr=1e-4, batch=1)


def _add_vae(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="folder with videos or images")
    parser.add_argument("--out", required=True, help="folder for checkpoints, log and vae.safetensors")
    parser.add_argument("--dim", type=int, default=96, help="width of the first stage (default: %(default)s)")
    parser.add_argument(
        "--frames", type=int, default=17, help="of the clips; single frames come first (default: %(default)s)"
    )
    parser.add_argument(
        "--side", type=int, default=64, help="of the square that is cut out, in pixels (default: %(default)s)"
    )
    parser.add_argument("--image-steps", type=int, help="steps on single frames (default: half of --steps)")
    parser.add_argument("--kl", type=float, default=1e-3, help="weight of the KL term (default: %(default)s)")
    parser.add_argument(
        "--perceptual",
        choices=("edge", "lpips"),
        default="edge",
        help="perceptual term; lpips needs the package lpips, which fetches VGG16 once (default: %(default)s)",
    )
    parser.add_argument("--gan-from", type=int, help="step from which the patch discriminator joins (default: never)")


def _add_transformer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model folder, for its VAE, text encoder and starting weights")
    parser.add_argument("data", help="folder with clips, and a .txt caption beside each")
    parser.add_argument("--out", required=True, help="folder for checkpoints, log and the result")
    parser.add_argument(
        "--expert", required=True, choices=("high", "low", "all"), help="which range of noise; all: a single model"
    )
    parser.add_argument("--width", type=int, help="pixels (default: the model's)")
    parser.add_argument("--height", type=int, help="pixels (default: the model's)")
    parser.add_argument("--frames", type=int, help="of each clip, a multiple of 4, plus 1 (default: the model's)")
    parser.add_argument("--boundary", type=float, help="between the experts, 0 to 1 (default: the model's)")
    parser.add_argument("--shift", type=float, help="flow shift in training (default: 5)", default=5.0)


def _add_run(parser: argparse.ArgumentParser, lr: float, batch: int) -> None:
    parser.add_argument("--steps", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=batch, help="clips a step (default: %(default)s)")
    parser.add_argument(
        "--rate", dest="lr", metavar="RATE", type=float, default=lr, help="highest learning rate (default: %(default)s)"
    )
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument(
        "--bf16", action="store_true", help="compute in bfloat16 where it is safe; weights stay float32"
    )


def run(options: argparse.Namespace) -> int:
    """Train what `options.what` names and write it into `options.out`."""
    from ..devices import usable_device

    config, device = _run_config(options), usable_device(options.device)
    if options.what == "vae":
        _train_vae(options, config, device)
    else:
        _train_transformer(options, config, device)
    return OK


def _run_config(options: argparse.Namespace) -> RunConfig:
    from ..training.run import RunConfig
    from ..validate import real_number, whole_number

    given = {name: value for name, value in vars(options).items() if value is not None}
    for name, (least, most) in _WHOLE.items():
        if name in given:
            whole_number(f"--{name.replace('_', '-')}", given[name], least, most)
    for name, (lowest, highest) in _REAL.items():
        if name in given:
            real_number("--rate" if name == "lr" else f"--{name}", given[name], lowest, highest)
    return RunConfig(
        steps=options.steps,
        lr=options.lr,
        warmup=min(100, options.steps // 10),
        ema=options.ema,
        save_every=options.save_every,
        seed=options.seed,
        autocast=options.bf16,
    )


def _train_vae(options: argparse.Namespace, config: RunConfig, device: torch.device) -> None:
    """Frames first, then clips; ends with the latents normalised to the official statistics."""
    from ..config import VAEConfig
    from ..training.data import crops, list_clips, read_clip
    from ..training.run import TrainingRun
    from ..training.vae import VAELoss, VAELossWeights, new_vae, normalise_latents

    if options.side % 8 or options.frames % 4 != 1:
        raise InputError(
            f"clips of {options.frames} frames and {options.side} pixels", "4n + 1 frames, a multiple of 8 pixels"
        )
    perceptual = _perceptual(options.perceptual, device)
    clips = [read_clip(file) for file in list_clips(options.data)]
    vae = new_vae(VAEConfig(dim=options.dim, decoder_dim=options.dim), options.seed).to(device)
    training = TrainingRun(_made(options.out), {"vae": vae}, config)
    loss = VAELoss(VAELossWeights(kl=options.kl, gan_from=options.gan_from), perceptual)
    print(f"perceptual term: {options.perceptual}")
    image_steps = config.steps // 2 if options.image_steps is None else options.image_steps

    def losses(step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        frames, count = (1, options.batch * options.frames) if step < image_steps else (options.frames, options.batch)
        video = crops(clips, count, frames, options.side, training.rng())
        return loss(vae, (video.to(device), None), step, generator)

    training.train(losses)
    training.apply_ema()
    rng = random.Random(options.seed)
    normalise_latents(vae, lambda n: crops(clips, 4, options.frames, options.side, rng).to(device), 16)
    _write(vae.state_dict(), Path(options.out) / "vae.safetensors")


def _perceptual(name: str, device: torch.device) -> Perceptual:
    from ..vae.losses import edge_loss, per_frame

    if name == "edge":
        return edge_loss
    try:
        import lpips
    except ImportError as error:
        raise InputError("--perceptual lpips", "the package lpips", "pip install lpips") from error
    return per_frame(lpips.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False).to(device))


def _train_transformer(options: argparse.Namespace, config: RunConfig, device: torch.device) -> None:
    """One expert, or a LoRA for it; clips and captions are encoded once and kept beside the checkpoints."""
    from ..checkpoints.model_files import open_model
    from ..lora import add_lora, save_lora
    from ..shapes import check_shape
    from ..training.data import encode_folder
    from ..training.expert import train_expert
    from ..training.run import TrainingRun

    files = open_model(options.model)
    preset = files.preset
    levels = _noise_range(options, preset)
    frames, height, width = (
        getattr(preset if getattr(options, name) is None else options, name) for name in ("frames", "height", "width")
    )
    shape = check_shape(frames, height, width, preset.vae, preset.dit)
    folder = _made(options.out)
    data = encode_folder(options.data, files, shape, folder / "cache.pt", device)
    model = _starting_weights(options, files)
    if options.what == "lora":
        add_lora(model, options.rank, options.alpha, options.seed)
    model = model.to(device)
    train_expert(model, data, levels, TrainingRun(folder, {"dit": model}, config), options.batch)
    path = folder / f"{options.what}_{options.expert}.safetensors"
    if options.what == "lora":
        save_lora(model, path)
        print(path)
    else:
        _write(model.state_dict(), path)


def _made(folder: str) -> Path:
    """The folder, made where there is none."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InputError(f"--out {quoted(folder)} cannot be a folder ({error})", "a folder, or a new one") from error
    return Path(folder)


def _noise_range(options: argparse.Namespace, preset: Preset) -> NoiseRange:
    """The noise levels to train on.

    Raises:
        InputError: --expert does not name an expert of this model, or a model that cannot be trained.
    """
    from ..training.expert import NoiseRange

    if options.expert == "all" and preset.two_experts:
        raise InputError("--expert all for a pair of experts", "high or low")
    if options.expert != "all" and not preset.two_experts:
        raise InputError(f"--expert {options.expert} for a single model", "--expert all")
    if preset.task not in ("t2v", "i2v"):
        raise InputError(f"training of {preset.name}", "a text-to-video or an image-to-video model")
    boundary = preset.boundary if options.boundary is None else options.boundary
    return NoiseRange.of(options.expert, 0.0 if boundary is None else boundary, options.shift)


def _starting_weights(options: argparse.Namespace, files: ModelFiles) -> WanDiT:
    """The model's own expert, that of --start, or a new one."""
    import torch

    from ..checkpoints import load_dit
    from ..training.expert import new_expert, start_from

    model = new_expert(files.preset.dit, options.seed)
    if options.what == "expert" and options.new:
        return model
    if options.what == "expert" and options.start:
        start = load_dit(options.start, dtype=torch.float32)
    else:
        own = files.low if options.expert == "low" and files.low is not None else files.high
        start = load_dit(own, files.preset.dit, torch.float32)
    return start_from(model, start.state_dict())


def _write(state: Mapping[str, torch.Tensor], path: Path) -> None:
    from ..checkpoints.write import write_tensors

    write_tensors(state, path)
    print(path)
