"""Placeholders in the name of a file: the date, and values of other nodes, written as for ComfyUI's own save nodes."""

import re
from collections.abc import Mapping
from datetime import datetime

PLACEHOLDER = re.compile(r"%([^%]+)%")
DATE_PARTS = re.compile(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?")
DATE = "yyyyMMddhhmmss"  # where only %date% is written
UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')  # in a file name, on one system or another
LONGEST = 100  # characters of a value


def fill_in(prefix: str, graph: Mapping[str, dict] | None, now: datetime) -> str:
    """`prefix` with %date%, %date:yyyy-MM-dd% and %Node.input% replaced; what names nothing stays as it is.

    Args:
        graph: the prompt, id → node; a node is named by its title, its class or its id.
    """

    def value(match: re.Match) -> str:
        name, _, rest = match[1].partition(":")
        if name == "date":
            return DATE_PARTS.sub(lambda part: _date_part(part[0], now), rest or DATE)
        found = _input(match[1], graph or {})
        return match[0] if found is None else UNSAFE.sub("_", str(found))[:LONGEST]

    return PLACEHOLDER.sub(value, prefix)


def _date_part(part: str, now: datetime) -> str:
    """Such as "07" for "MM", and "7" for "M"."""
    values = {"y": now.year, "M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}
    return str(values[part[0]]).zfill(len(part))[-max(2, len(part)) :]


def _input(name: str, graph: Mapping[str, dict]) -> object:
    """The value of "Node.input", or None where there is no such node or its input is linked."""
    for id_, node in graph.items():
        for title in (node.get("_meta", {}).get("title"), node.get("class_type"), id_):
            found = node.get("inputs", {}).get(name.removeprefix(f"{title}."))
            if name.startswith(f"{title}.") and isinstance(found, (str, int, float)):
                return found
    return None
