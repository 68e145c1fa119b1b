"""Train on a folder of clips. A run can be stopped and continued with the same command. See docs/training.md."""

from argparse import ArgumentParser, Namespace

from ..training.arguments import add_parsers

NAME = "train"
HELP = "train a VAE, an expert or a LoRA on a folder of clips"


def add_arguments(parser: ArgumentParser) -> None:
    add_parsers(parser)


def run(options: Namespace) -> int:
    return options.run(options)
