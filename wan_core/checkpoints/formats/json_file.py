"""JSON objects from files that anybody may have written."""

import json
import math
from pathlib import Path

from ...errors import CheckpointError, excerpt
from .limits import LARGEST_HEADER


def parse_object(raw: bytes) -> dict:
    """A JSON object in UTF-8 with unique names and finite numbers.

    Raises:
        ValueError: with what is wrong.
    """
    if len(raw) > LARGEST_HEADER:
        raise ValueError(f"more than {LARGEST_HEADER:,} bytes")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def load_json(path: Path) -> dict:
    """
    Raises:
        CheckpointError: no JSON object.
    """
    try:
        if not path.is_file():  # opening a named pipe would block
            raise ValueError("no file")
        with path.open("rb") as file:
            return parse_object(file.read(LARGEST_HEADER + 1))
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not readable JSON ({excerpt(error)})", fix="Download the file again"
        ) from error


def _unique(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same name twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:  # 64 bits and a sign
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {excerpt(text, 20)}")
    return value
