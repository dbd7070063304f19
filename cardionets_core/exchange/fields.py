"""An envelope's scalars, read strictly (rows 0 and 10 of the walk): no default, and no other type."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cardionets_core.errors import PeerError
from cardionets_core.plain_json import parse_json

Scalar = str | int | float
DIGEST = re.compile(r"[0-9a-f]{64}")
LONGEST_JSON = 1_000_000
_CODE = re.compile(r"[a-z-]{0,40}")


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


def within(fields: Mapping[str, Scalar], key: str, *, most: int) -> int:
    """A whole number from 0 to ``most``.

    Raises:
        PeerError: it is missing, something else, or out of its bounds.
    """
    value = whole(fields, key)
    if not 0 <= value <= most:
        raise PeerError(f"the field {key} is out of its bounds", where="exchange")
    return value


def number(fields: Mapping[str, Scalar], key: str) -> float:
    """A number.

    Raises:
        PeerError: it is missing or something else.
    """
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PeerError(f"the field {key} is missing or not a number", where="exchange")
    try:
        return float(value)
    except OverflowError as error:
        raise PeerError(f"the field {key} is too large for a number", where="exchange") from error


def texts(fields: Mapping[str, Scalar], prefix: str) -> dict[str, str]:
    """All texts under a prefix, by the rest of their name.

    Raises:
        PeerError: one is something else.
    """
    found = (key for key in fields if key.startswith(f"{prefix}/"))
    return {key.removeprefix(f"{prefix}/"): text(fields, key) for key in found}


def digests(fields: Mapping[str, Scalar], prefix: str) -> dict[str, str]:
    """All digests under a prefix, by the rest of their name.

    Raises:
        PeerError: one is none.
    """
    found = texts(fields, prefix)
    if not all(DIGEST.fullmatch(digest) for digest in found.values()):
        raise PeerError(f"a field under {prefix} holds no digest", where="exchange")
    return found


def code(fields: Mapping[str, Scalar], key: str) -> str:
    """A code of a refusal, or an empty text.

    Raises:
        PeerError: it is something else.
    """
    found = text(fields, key)
    if _CODE.fullmatch(found) is None:
        raise PeerError(f"the field {key} holds no code", where="exchange")
    return found


def json_text(fields: Mapping[str, Scalar], key: str, *, empty: bool = False) -> str:
    """JSON that whoever reads it can read: bounded in length, depth and numbers.

    Args:
        fields: of the envelope.
        key: of the field.
        empty: whether it may also be an empty text.

    Raises:
        PeerError: it is something else.
    """
    found = text(fields, key)
    if len(found) > LONGEST_JSON:
        raise PeerError(f"the field {key} is longer than any of ours", where="exchange")
    try:
        if found or not empty:
            parse_json(found)
    except ValueError as error:
        raise PeerError(f"the field {key} holds no JSON that can be read", where="exchange") from error
    return found
