"""JSON that another hand wrote: from the wire, or from a disk that others can write to.

Comes in: text, or the path of a file. Goes out: plain values. The standard library's reader ends in other
kinds of errors where a text is nested deeply, takes the last of two values of one key, and knows numbers that
JSON does not. Here all that is a ``ValueError``, so that whoever reads a document has one kind of fault to
turn into a refusal.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

LARGEST_BYTES = 64_000_000
"""Of any document that is read whole."""


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        text: UTF-8 where it is bytes.
        finite: whether NaN and infinities are refused; our own records may hold them.

    Raises:
        ValueError: it is no JSON, names a key twice, is nested too deeply, or holds a number that is not
            finite or has too many digits.
    """
    try:
        plain = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(
            plain,
            object_pairs_hook=_once,
            parse_constant=_refused if finite else None,
            parse_float=_finite if finite else None,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path, *, most_bytes: int = LARGEST_BYTES, finite: bool = True) -> Any:
    """The value in a file.

    Args:
        path: of a regular file; opening a pipe would wait for ever.
        most_bytes: a larger one is not read.
        finite: as ``parse_json``.

    Raises:
        OSError: there is none, it is something else, or it cannot be read.
        ValueError: it is too large, or as ``parse_json``.
    """
    return parse_json(read_bounded(path, most_bytes=most_bytes), finite=finite)


def read_bounded(path: Path, *, most_bytes: int) -> bytes:
    """The bytes of a regular file that is not larger than it may be.

    Raises:
        OSError: there is none, it is something else, or it cannot be read.
        ValueError: it is too large.
    """
    # A pipe that nobody writes into opens at once, and is seen to be none of ours.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(handle, "rb", closefd=False) as stream:
            content = stream.read(most_bytes + 1)
    finally:
        os.close(handle)
    if len(content) > most_bytes:
        raise ValueError(f"more than {most_bytes} bytes")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
