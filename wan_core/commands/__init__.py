"""What `python -m wan_core` can do: one file a command; `wan_core.cli` is the table of them."""

from argparse import ArgumentParser, Namespace
from typing import Protocol

OK, FAILED, BAD_INPUT, BAD_MODEL, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes


class Command(Protocol):
    """What a module of this package has; its docstring is shown by `--help`.

    Whatever loads torch is imported inside `run`, so that help and wrong arguments are answered at once.

    Attributes:
        NAME: the word on the command line.
        HELP: half a line for the list of commands.
    """

    NAME: str
    HELP: str

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def run(self, options: Namespace) -> int:
        """Do it and return the exit code.

        Raises:
            WanError: what went wrong; `main` prints it and chooses the code.
        """
        ...
