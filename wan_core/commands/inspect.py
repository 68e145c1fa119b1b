"""Say what a weight file or a model folder is: kind, family, layout, dtype, size. Reads headers only."""

from argparse import ArgumentParser, Namespace

from . import OK

NAME = "inspect"
HELP = "say what a model file or folder is, without loading it"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", help="a weight file, a folder of shards, or a model folder")


def run(options: Namespace) -> int:
    from ..checkpoints import inspect

    print(inspect(options.path))
    return OK
