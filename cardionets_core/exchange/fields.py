"""An envelope's scalars, read strictly (rows 0 and 10 of the walk): no default, and no other type."""

from __future__ import annotations

from collections.abc import Mapping

from cardionets_core.errors import PeerError

Scalar = str | int | float


def text(fields: Mapping[str, Scalar], key: str) -> str:
    """A text.

    Raises:
        PeerError: it is missing or something else.
    """
    value = fields.get(key)
    if not isinstance(value, str):
        raise PeerError(f"the field {key} is missing or not text", where="exchange")
    return value


def whole(fields: Mapping[str, Scalar], key: str) -> int:
    """A whole number.

    Raises:
        PeerError: it is missing or something else.
    """
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PeerError(f"the field {key} is missing or not a whole number", where="exchange")
    return value


def number(fields: Mapping[str, Scalar], key: str) -> float:
    """A number.

    Raises:
        PeerError: it is missing or something else.
    """
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PeerError(f"the field {key} is missing or not a number", where="exchange")
    return float(value)


def texts(fields: Mapping[str, Scalar], prefix: str) -> dict[str, str]:
    """All texts under a prefix, by the rest of their name.

    Raises:
        PeerError: one is something else.
    """
    found = (key for key in fields if key.startswith(f"{prefix}/"))
    return {key.removeprefix(f"{prefix}/"): text(fields, key) for key in found}
