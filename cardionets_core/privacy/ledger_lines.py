"""The lines of a site's ledger: their form, their chain of hashes, and the charges that they make.

Comes in: a link to the file. Goes out: charges that stand, or a refusal of a line that does not fit.
Begins no transaction and composes nothing; that is ``ledger``'s.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cardionets_core.errors import DataError
from cardionets_core.plain_json import parse_json
from cardionets_core.privacy.accountant import Mechanism

GENESIS = "0" * 64
_FACTS = {"study": str, "name": str, "phase": int, "task": str, "round": int, "part": str, "is_secret": bool}

Event = Literal["reserved", "committed", "released"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one answer to one order costs.

    Attributes:
        study: digest of the study.
        name: the study's name, for people.
        phase: index of the phase.
        task: of the phase.
        round: number of the round.
        part: which answer of the round: ``train``, ``sums``, ``statistics``.
        mechanism: what runs.
        is_secret: False where the noise follows from the study's public seed, as in tests: no privacy then.
    """

    study: str
    name: str
    phase: int
    task: str
    round: int
    part: str
    mechanism: Mechanism
    is_secret: bool = True

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What of which round it is."""
        return self.study, self.phase, self.round, self.part


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A charge that stands in the ledger.

    Attributes:
        reservation: its name.
        charge: the cost.
        committed: whether its result was ready to leave.
        time_s: Unix time of the reservation.
    """

    reservation: str
    charge: Charge
    committed: bool
    time_s: float


def append(link: sqlite3.Connection, event: Event, facts: dict[str, Any]) -> None:
    """Add a line to the chain."""
    number, previous = end(link)
    body = json.dumps(
        {"event": event, "time_s": round(time.time(), 3), **facts}, sort_keys=True, separators=(",", ":")
    )
    link.execute(
        "INSERT INTO lines VALUES (?, ?, ?, ?)", (number + 1, _digest(previous, body), previous, body)
    )


def end(link: sqlite3.Connection) -> tuple[int, str]:
    """Number and hash of the last line; 0 and zeros where there is none."""
    row = link.execute("SELECT number, hash FROM lines ORDER BY number DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, GENESIS)


def count(link: sqlite3.Connection, path: Path) -> int:
    """The number of lines, each checked.

    Raises:
        DataError: names the first line that does not fit.
    """
    return len(_bodies(link, path))


def standing(link: sqlite3.Connection, path: Path) -> list[Entry]:
    """All charges that stand, reserved or committed, in order.

    Raises:
        DataError: a line does not fit, or says something else than a ledger's.
    """
    try:
        return _standing(_bodies(link, path))
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise _unreadable(path) from error


def _bodies(link: sqlite3.Connection, path: Path) -> list[dict[str, Any]]:
    previous, contents = GENESIS, []
    rows = link.execute("SELECT number, hash, previous, body FROM lines ORDER BY number").fetchall()
    for number, (found, digest, before, body) in enumerate(rows, start=1):
        if found != number or before != previous or digest != _digest(previous, body):
            raise DataError(
                f"line {number} of the ledger does not continue the chain",
                where=str(path),
                remedy="keep the file for inspection, and restore the ledger from its backup",
            )
        previous = digest
        try:
            contents.append(parse_json(body))
        except (TypeError, ValueError) as error:
            raise _unreadable(path) from error
    return contents


def _standing(contents: Sequence[dict[str, Any]]) -> list[Entry]:
    found: dict[str, Entry] = {}
    for body in contents:
        name = str(body["reservation"])
        if body["event"] == "reserved":
            facts = {key: body[key] for key in _FACTS}
            if any(type(facts[key]) is not kind for key, kind in _FACTS.items()):
                raise TypeError("a charge of other types")
            charge = Charge(**facts, mechanism=Mechanism(**body["mechanism"]))
            found[name] = Entry(
                reservation=name, charge=charge, committed=False, time_s=float(body["time_s"])
            )
        elif body["event"] == "released":
            found.pop(name)
        else:
            before = found[name]
            found[name] = Entry(reservation=name, charge=before.charge, committed=True, time_s=before.time_s)
    return list(found.values())


def _digest(previous: str, body: str) -> str:
    return hashlib.sha256(f"{previous} {body}".encode()).hexdigest()


def _unreadable(path: Path) -> DataError:
    return DataError(
        "a line of the ledger cannot be read",
        where=str(path),
        remedy="install the version of CardioNets that wrote it",
    )
