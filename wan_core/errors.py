"""Typed errors. Each says what was found, what was needed, and what to do next."""


class WanError(Exception):
    """Base of every error that this library raises on purpose.

    Args:
        found: what was met, with the value or the file named.
        needed: what would have been right.
        fix: the next thing to do.
    """

    def __init__(self, found: str, needed: str = "", fix: str = ""):
        self.found, self.needed, self.fix = found, needed, fix
        parts = [found.rstrip(".") + "."]
        if needed:
            parts.append(f"Needed: {needed.rstrip('.')}.")
        if fix:
            parts.append(fix.rstrip(".") + ".")
        super().__init__(" ".join(parts))


class InputError(WanError, ValueError):
    """An argument that the model cannot work with; raised before anything is allocated."""


class CheckpointError(WanError, ValueError):
    """A model file or folder that is damaged, incomplete, or not what the slot needs."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """A model file or folder that is not there."""


class NumericalError(WanError, ArithmeticError):
    """The model returned NaN or infinity."""


class OutOfMemory(WanError, MemoryError):
    """The device ran out of memory; this error holds no tensor of the run that failed."""


class VideoError(WanError, OSError):
    """A video or image file that could not be written or read."""

    # OSError would print its errno form; the sentence is what people need.
    __str__ = Exception.__str__
