"""Command line: the table of commands, and exit codes for errors."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from .commands import BAD_INPUT, BAD_MODEL, FAILED, INTERRUPTED, OK, Command, demo, generate, inspect, plan, train
from .commands.printing import printing
from .errors import CheckpointError, InputError, WanError, one_line

COMMANDS: tuple[Command, ...] = (generate, inspect, plan, demo, train)
CODES = ((CheckpointError, BAD_MODEL), (InputError, BAD_INPUT), (WanError, FAILED))  # the first that fits

_EPILOG = """\
exit codes: 0 done, 1 failed while running, 2 bad arguments or input, 3 model files missing or wrong, 130 interrupted

examples:
  python -m wan_core demo --out demo.mp4
  python -m wan_core plan --preset t2v-a14b --steps 40 --width 832 --height 480
  python -m wan_core generate ./Wan2.2-T2V-A14B "A cat walks through the snow" --out cat.mp4 --offload --dtype bfloat16
  python -m wan_core generate ./Wan2.2-I2V-A14B "海浪拍打礁石" --image rocks.png --offload --dtype bfloat16
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    with printing() as output:
        options = _parser().parse_args(arguments)
        try:
            code = _run(options)
            output.flush()
            if code == OK and output.failure is not None:
                raise output.failure
            return code
        except WanError as error:
            print(f"error: {error}", file=sys.stderr)
            return next(code for kind, code in CODES if isinstance(error, kind))
        except OSError as error:  # a full disk, say, where no error of our own tells of it
            where = "" if error.filename is None else f"{error.filename}: "
            print(f"error: {one_line(f'{where}{error.strerror}')}.", file=sys.stderr)
            return FAILED
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    from .memory import typed_oom  # which loads torch

    with typed_oom():
        return options.command.run(options)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m wan_core",
        description="Generate video with Wan2.2 models. Start with `demo`: it needs no download and no GPU.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        subparser = choices.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        subparser.set_defaults(command=command)
        command.add_arguments(subparser)
    return parser
