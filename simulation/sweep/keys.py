"""Sets a dotted key in a scenario's document.

Mappings are entered by name. Entries of lists are named by what names them, a phase by its task and a
hospital by its site, or by their number from 1.
"""

from __future__ import annotations

from typing import Any

from cardionets_core.config.faults import did_you_mean
from cardionets_core.errors import ConfigError
from simulation.sweep.values import Value

NAMES = ("task", "site")
"""Keys whose value names an entry of a list."""


def set_key(document: dict[str, Any], key: str, value: Value) -> None:
    """Put a value in its place; mappings that are not there yet are made on the way.

    Args:
        document: a plain one; changed.
        key: dotted.
        value: null takes the key away, so that its default holds.

    Raises:
        ConfigError: the key leads through something that is no mapping and no list, or to no entry of a list.
    """
    parts = key.split(".")
    place: Any = document
    for depth, part in enumerate(parts[:-1]):
        place = _step(place, part, where=".".join(parts[: depth + 1]))
    last = parts[-1]
    if isinstance(place, list):
        place[_entry(place, last, where=key)] = value
    elif not isinstance(place, dict):
        raise _leads_nowhere(key, place)
    elif value is None:
        place.pop(last, None)
    else:
        place[last] = value


def _step(place: Any, part: str, *, where: str) -> Any:
    if isinstance(place, list):
        return place[_entry(place, part, where=where)]
    if not isinstance(place, dict):
        raise _leads_nowhere(where, place)
    if place.get(part) is None:
        place[part] = {}
    return place[part]


def _entry(place: list[Any], part: str, *, where: str) -> int:
    names = [next((entry[name] for name in NAMES if name in entry), "") if isinstance(entry, dict) else ""
             for entry in place]  # fmt: skip
    if names.count(part) == 1:
        return names.index(part)
    if part.isascii() and part.isdigit() and 1 <= int(part) <= len(place):
        return int(part) - 1
    several = f"; there are several of the name {part}: use the number" if names.count(part) > 1 else ""
    known = ", ".join(f"{number} {name}".strip() for number, name in enumerate(names, start=1))
    hint = several or did_you_mean(part, filter(None, names))
    raise ConfigError(
        f"there is no entry {part!r}{hint}", where=where, remedy=f"use one of: {known or 'none'}"
    )


def _leads_nowhere(where: str, place: Any) -> ConfigError:
    return ConfigError(
        f"the key leads into {place!r}, which has no keys", where=where, remedy="see docs/simulation.md"
    )
