"""Whether sockets were given what they are for: a prompt through the API may have a literal where a link belongs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...wan_core.errors import InputError, quoted

JSON = (str, int, float, list, dict)


def check_sockets(sockets: Iterable, values: Mapping[str, Any]) -> None:
    """Raise InputError where `values` has for one of `sockets`, inputs of a schema, what no node can have put out."""
    for socket in sockets:
        value, kind = values.get(socket.id), socket.io_type
        if value is None and (socket.optional or kind == "MODEL"):  # a loader of one expert has no second MODEL
            continue
        if value is None or not _VALUES.get(kind, _is_object)(value):
            raise InputError(
                f"{socket.id} is {'empty' if value is None else quoted(value, 100)}",
                f"{'an' if kind[0] in 'AI' else 'a'} {kind}",
                "Connect the output of a node to it; in an API prompt that is [id of the node, number of the output]",
            )


def _is_object(value) -> bool:
    """Whether it is more than JSON can write: other packs have classes of their own for MODEL, VAE and CLIP."""
    return not isinstance(value, JSON)


def _holds(key: str) -> Callable[[Any], bool]:
    """Whether it is a table with a tensor under `key`."""
    return lambda value: not isinstance(value, JSON) or (isinstance(value, dict) and hasattr(value.get(key), "shape"))


def _is_conditioning(value) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[1], dict) for pair in value
    )


_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "CONDITIONING": _is_conditioning,
    "LATENT": _holds("samples"),
    "AUDIO": _holds("waveform"),
}
