"""Names that the other side chose: of modules, tensors, sums and values (rows 0 and 10 of the walk).

A name becomes part of a path, of a line in a log or of a page. One that could leave a folder, break a line or
steer a terminal is none of ours and is refused at the door, so that nobody behind it has to look again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cardionets_core.errors import PeerError

LONGEST_NAME = 200
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_SHOWN = 60


def is_plain_name(name: str) -> bool:
    """Whether a text is a name as ours are: letters, digits, ``_ . -``, in parts between single slashes."""
    return len(name) <= LONGEST_NAME and _NAME.fullmatch(name) is not None


def check_names(names: Iterable[str]) -> None:
    """Refuse what is no plain name.

    Raises:
        PeerError: shows the name, so that it can do no harm.
    """
    for name in names:
        if not is_plain_name(name):
            raise PeerError(f"a name came that is none of ours: {ascii(name)[:_SHOWN]}", where="exchange")
