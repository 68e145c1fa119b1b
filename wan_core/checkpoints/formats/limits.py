"""Upper limits that no weight file of this family comes near, checked before what a header states costs memory."""

import math

from ...errors import quoted

LARGEST_HEADER = 6_000_000  # bytes of JSON or pickle; as Python objects up to 35 times as much. Wan's are below 0.5 MB
MOST_TENSORS = 50_000  # Wan's largest files have about 4,000
MOST_DIMENSIONS = 8
LARGEST = 2**63 - 1  # of any number that torch is given
LONGEST_NAME = 1024  # bytes


def check_tensor(name: str, shape) -> None:
    """Raises ValueError for a name or a shape that no tensor can have."""
    if not name or len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"a tensor whose name is {len(name):,} characters long")
    possible = len(shape) <= MOST_DIMENSIONS and all(type(size) is int and size >= 0 for size in shape)
    if not possible or math.prod(filter(None, shape)) > LARGEST:  # torch multiplies sizes even where one is 0
        raise ValueError(f"{quoted(name)} of an impossible shape")
