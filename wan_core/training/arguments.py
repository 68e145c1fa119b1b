"""Arguments of `python -m wan_core train`; what it does is in `commands`, which loads torch."""

import argparse


def add_parsers(parser: argparse.ArgumentParser) -> None:
    """The three trainers under `train`."""
    kinds = parser.add_subparsers(required=True, metavar="what", help="vae, expert or lora")
    vae = kinds.add_parser(
        "vae", help="a VAE, from nothing", description="Train a 2.1 VAE on frames and clips of a folder."
    )
    vae.add_argument("data", help="folder with videos or images")
    vae.add_argument("--out", required=True, help="folder for checkpoints, log and vae.safetensors")
    vae.add_argument("--dim", type=int, default=96, help="width of the first stage (default: %(default)s)")
    vae.add_argument(
        "--frames", type=int, default=17, help="of the clips; single frames come first (default: %(default)s)"
    )
    vae.add_argument(
        "--side", type=int, default=64, help="of the square that is cut out, in pixels (default: %(default)s)"
    )
    vae.add_argument("--image-steps", type=int, help="steps on single frames (default: half of --steps)")
    vae.add_argument("--kl", type=float, default=1e-3, help="weight of the KL term (default: %(default)s)")
    vae.add_argument("--gan-from", type=int, help="step from which the patch discriminator joins (default: never)")
    _add_run(vae, rate=1e-3, batch=8)
    vae.set_defaults(run=_train_vae)

    for name, what in (("expert", "one transformer"), ("lora", "a LoRA for one transformer")):
        expert = kinds.add_parser(name, help=what, description=f"Train {what} on clips with captions.")
        expert.add_argument("model", help="model folder, for its VAE, text encoder and starting weights")
        expert.add_argument("data", help="folder with clips, and a .txt caption beside each")
        expert.add_argument("--out", required=True, help="folder for checkpoints, log and the result")
        expert.add_argument(
            "--expert", required=True, choices=("high", "low", "all"), help="which range of noise; all: a single model"
        )
        expert.add_argument("--width", type=int, help="pixels (default: the model's)")
        expert.add_argument("--height", type=int, help="pixels (default: the model's)")
        expert.add_argument("--frames", type=int, help="of each clip, a multiple of 4, plus 1 (default: the model's)")
        expert.add_argument("--boundary", type=float, help="between the experts, 0 to 1 (default: the model's)")
        expert.add_argument("--shift", type=float, help="flow shift in training (default: 5)", default=5.0)
        if name == "expert":
            expert.add_argument(
                "--start", metavar="FILE", help="transformer to start from (default: the model's own expert)"
            )
            expert.add_argument("--new", action="store_true", help="start from random weights")
        else:
            expert.add_argument("--rank", type=int, default=16, help="default: %(default)s")
            expert.add_argument("--alpha", type=float, help="default: the rank")
        _add_run(expert, rate=1e-4, batch=1)
        expert.set_defaults(run=_train_transformer, lora=name == "lora", start=None, new=False)


def _add_run(parser: argparse.ArgumentParser, rate: float, batch: int) -> None:
    parser.add_argument("--steps", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=batch, help="clips a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=rate, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument(
        "--bf16", action="store_true", help="compute in bfloat16 where it is safe; weights stay float32"
    )


def _train_vae(options: argparse.Namespace) -> int:
    from .commands import train_vae

    return train_vae(options)


def _train_transformer(options: argparse.Namespace) -> int:
    from .commands import train_transformer

    return train_transformer(options)
