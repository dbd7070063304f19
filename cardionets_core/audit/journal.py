"""A hash-chained, append-only journal of JSON lines, flushed to disk line by line.

Each line holds the SHA-256 of the line before it, so a line that is changed, removed or moved breaks the
chain (``verify``). The number and the hash of the last line, its head, stand for all lines before it: who has
written a head down finds later whether the journal still holds it (``hash_of``). The journal names rounds,
digests, counts and bytes; never a patient, path or value.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cardionets_core.errors import DataError
from cardionets_core.plain_json import parse_json

GENESIS = "0" * 64


def append(path: Path, event: str, facts: Mapping[str, str | int | float]) -> str:
    """Append one line and wait until the disk has it.

    Args:
        path: the journal; made with its folder if absent.
        event: kebab-case name of what happened.
        facts: scalars.

    Returns:
        The hash of the new line, the chain's new end.

    Raises:
        DataError: the journal's last line is torn; nothing is written.
        OSError: the disk did not take the line; then no part of it is there.
    """
    return append_line(path, event, facts)[1]


def append_line(path: Path, event: str, facts: Mapping[str, str | int | float]) -> tuple[int, str]:
    """As ``append``; returns the number and the hash of the new line: the head that it makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = handle.seek(0, os.SEEK_END)
        number, previous = _end(size, path)
        body = {
            "number": number,
            "time_s": round(time.time(), 3),
            "event": event,
            **facts,
            "previous": previous,
        }
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        try:
            _write_all(handle.fileno(), f"{digest} {text}\n".encode())
            os.fsync(handle.fileno())
        except OSError:
            # Half a line would break the chain for good.
            os.ftruncate(handle.fileno(), size)
            raise
    return number, digest


def head(path: Path) -> tuple[int, str]:
    """Number and hash of the last line; 0 and ``GENESIS`` where there is none.

    Raises:
        DataError: the last line is torn.
    """
    if not path.exists():
        return 0, GENESIS
    with path.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        number, digest = _end(handle.seek(0, os.SEEK_END), path)
    return number - 1, digest


def hash_of(path: Path, number: int) -> str | None:
    """The hash of one line, by its number from 1; that of line 0 is ``GENESIS``. None for an absent line.

    The chain up to that line is not checked; ``verify`` does.
    """
    if number == 0:
        return GENESIS
    if number < 0 or not path.exists():
        return None
    with path.open("rb") as handle:
        for place, line in enumerate(handle, start=1):
            if place == number:
                return line[: len(GENESIS)].decode("ascii", errors="replace")
    return None


def bodies(path: Path) -> Iterator[dict[str, Any]]:
    """What each line holds, in their order; the chain is not checked.

    Raises:
        DataError: a line cannot be read.
    """
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            body = _body(line.partition(b" ")[2])
        except ValueError as error:
            raise _broken(path, number) from error
        yield body


def mend(path: Path) -> int:
    """Set aside what a power cut left of a line that was being written; the chain then goes on.

    ``append`` returns only when the disk has its line, and nothing leaves before that: half a line at the end
    tells of nothing that happened. Its bytes are kept beside the journal in ``NAME.torn``.

    Returns:
        The number of bytes that were set aside; 0 where the journal is whole or absent.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        content = handle.read()
        torn = content[content.rfind(b"\n") + 1 :]
        if torn:
            with path.with_name(f"{path.name}.torn").open("ab") as kept:
                kept.write(torn + b"\n")
                kept.flush()
                os.fsync(kept.fileno())
            os.ftruncate(handle.fileno(), len(content) - len(torn))
            os.fsync(handle.fileno())
    return len(torn)


def _write_all(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]


def verify(path: Path) -> int:
    """Check the whole chain.

    Returns:
        The number of lines.

    Raises:
        DataError: names the first line that does not fit.
    """
    previous = GENESIS
    number = 0
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        digest, _, text = line.partition(b" ")
        try:
            body = _body(text) if hashlib.sha256(text).hexdigest().encode() == digest else {}
        except ValueError as error:
            raise _broken(path, number) from error
        if body.get("previous") != previous or body.get("number") != number:
            raise _broken(path, number)
        previous = digest.decode()
    return number


def _broken(path: Path, number: int) -> DataError:
    return DataError(
        f"line {number} does not continue the chain",
        where=f"{path}:{number}",
        remedy="keep it: stop the service, move it to journal.jsonl.broken, leave ledger.db where it is, "
        "start again, and tell the coordinator; cardionets-client status prints the lines to type",
    )


def _end(size: int, path: Path) -> tuple[int, str]:
    """Number of the next line and hash of the last one."""
    if size == 0:
        return 1, GENESIS
    with path.open("rb") as handle:
        handle.seek(max(0, size - 65_536))
        tail = handle.read()
    if not tail.endswith(b"\n"):
        raise _no_end(path, "is torn")
    digest, _, text = tail.splitlines()[-1].partition(b" ")
    try:
        number = _body(text)["number"]
        if type(number) is not int or number < 1:
            raise ValueError("no number of a line")
        return number + 1, digest.decode("ascii")
    except (ValueError, KeyError) as error:
        raise _no_end(path, "cannot be read") from error


def _no_end(path: Path, fault: str) -> DataError:
    return DataError(
        f"the journal's last line {fault}",
        where=str(path),
        remedy="keep the file for inspection; move it away to start a new journal",
    )


def _body(text: bytes) -> dict[str, Any]:
    """What a line holds.

    Raises:
        ValueError: it is no JSON of an object, whatever its hash says.
    """
    body = parse_json(text, finite=False)
    if not isinstance(body, dict):
        raise ValueError("no object")
    return body
