"""What a config may state: the type and the range of every field, checked before anything is computed with its value.

The types are those of the dataclass, so that a new field needs nothing here.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ..errors import CheckpointError, quoted

# Far above every released model: 40 layers, a vocabulary of 256,384.
_MOST_LAYERS, _MOST = 256, 2**20
_MOST_OF = {"layers": _MOST_LAYERS, "text_len": 4096}


def _is_whole(value: object, least: int = 1, most: int = _MOST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_epsilon(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1


def _is_row_of_layers(value: object) -> bool:
    """Such as (0, 5, 10): whole numbers that rise."""
    if not isinstance(value, tuple) or not all(_is_whole(n, 0, _MOST_LAYERS) for n in value):
        return False
    return all(first < second for first, second in itertools.pairwise(value))


def _is_row_of_numbers(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, (int, float)) and abs(n) < _MOST for n in value)


# Type of a field → what its values are, and whether one is. A size may be 0 where that is the field's default.
_FIELD_TYPES: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a positive whole number", _is_whole),
    float: ("a small positive number", _is_epsilon),
    str: ("a word", lambda value: isinstance(value, str)),
    tuple[int, int, int]: ("(1, 2, 2)", lambda value: value == (1, 2, 2) and all(map(_is_whole, value))),
    tuple[int, ...]: ("layers that exist, in order", _is_row_of_layers),
    tuple[float, ...]: ("numbers", _is_row_of_numbers),
}


def check_values(cls: type, values: Mapping[str, Any]) -> None:
    """
    Args:
        values: field → value, of all fields of the dataclass or of some.
    Raises:
        CheckpointError: one is of another type or range than its field.
    """
    for entry in fields(cls):
        if entry.name not in values:
            continue
        value, (needed, suits) = values[entry.name], _FIELD_TYPES[entry.type]
        if entry.name in _MOST_OF:
            most = _MOST_OF[entry.name]
            needed, fine = f"{needed}, at most {most}", _is_whole(value, most=most)
        else:
            fine = suits(value) or (entry.type is int and entry.default == 0 and _is_whole(value, least=0))
        if not fine:
            raise CheckpointError(f"a model config with {entry.name} = {quoted(value)}", needed)


def stated_values(cls: type, config: Mapping, names: Mapping[str, str]) -> dict[str, Any]:
    """The entries of `config` that `names` maps (theirs → ours), under our names.

    Raises:
        CheckpointError: as `check_values`.
    """
    values = {
        ours: tuple(config[theirs]) if isinstance(config[theirs], list) else config[theirs]
        for theirs, ours in names.items()
        if config.get(theirs) is not None
    }
    check_values(cls, values)
    return values


def head_size(config: Mapping, name: str) -> int | None:
    """The width of a head, where the config states it."""
    size = config.get(name)
    if size is not None and not _is_whole(size):
        raise CheckpointError(f"a model config with {name} = {quoted(size)}", "a positive whole number")
    return size


def mapping(config: object) -> Mapping:
    """The config, or a CheckpointError where it is no table of names."""
    if not isinstance(config, Mapping):
        raise CheckpointError(
            f"a model config that is a {type(config).__name__}", "a dataclass of wan_core.config, or a dict"
        )
    return config
