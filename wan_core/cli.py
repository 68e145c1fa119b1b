"""Command line: the table of commands, and exit codes for errors."""

import argparse
import os
import sys
from collections.abc import Sequence

from .commands import BAD_INPUT, BAD_MODEL, FAILED, INTERRUPTED, OK, Command, demo, generate, inspect, plan, train
from .errors import CheckpointError, InputError, WanError

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
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot print Chinese must not end the run
    options = _parser().parse_args(arguments)
    try:
        code = options.command.run(options)
        sys.stdout.flush()
        return code
    except WanError as error:
        print(f"error: {error}", file=sys.stderr)
        return next(code for kind, code in CODES if isinstance(error, kind))
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
