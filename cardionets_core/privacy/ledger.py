"""The ledger of a site: what privacy its patients have spent, over all studies and for ever.

Before the first step of a private mechanism its cost is reserved; when its result is ready, and before it
leaves, the cost is committed. What is reserved counts as spent: a site that dies in between has counted too
much, never too little. As nothing leaves before the commit, a reservation that is still open is taken up by
the same round when it is asked again.

One SQLite file (WAL, full synchronisation), append only: triggers refuse to change or remove a line, and each
line holds the SHA-256 of the one before. Comes in: mechanisms by round. Goes out: sums by study and phase, or
a refusal. Accounting itself is ``accountant``'s, the lines' form is ``ledger_lines``'s.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cardionets_core.errors import BudgetSpentError, DataError, StorageFailedError
from cardionets_core.privacy.accountant import Accountant, epsilon_of, stays_within
from cardionets_core.privacy.ledger_lines import Charge, Entry, append, count, end, standing

WAIT_S = 30.0
"""How long a second process waits for the first one's transaction."""
EXCESS = 1e-9
"""Relative; for the last bits of two sums of the same numbers."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lines (
    number INTEGER PRIMARY KEY, hash TEXT NOT NULL, previous TEXT NOT NULL, body TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS no_change BEFORE UPDATE ON lines BEGIN
    SELECT RAISE(ABORT, 'a line of the ledger never changes');
END;
CREATE TRIGGER IF NOT EXISTS no_removal BEFORE DELETE ON lines BEGIN
    SELECT RAISE(ABORT, 'a line of the ledger is never removed');
END;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What may be spent.

    Attributes:
        epsilon: at most.
        delta: at which it is computed.
        where: whose limit it is, for the error.
        study: digest of the study that it holds for; None for everything in the ledger.
    """

    epsilon: float
    delta: float
    where: str
    study: str | None = None


class Ledger:
    """One site's ledger.

    Args:
        path: the file; made, with its folder, where it is absent.
        accountant: composes.

    Raises:
        DataError: the file is not a ledger.
    """

    def __init__(self, path: Path, *, accountant: Accountant = "prv") -> None:
        self._path = path
        self._accountant: Accountant = accountant
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connected() as link:
            link.executescript(_SCHEMA)

    def reserve(self, charge: Charge, limits: Sequence[Limit]) -> str:
        """Reserve a cost, if with it everything stays within every limit.

        Args:
            charge: the cost.
            limits: of the site, and of the study.

        Returns:
            The reservation's name: a new one, or that of the same round, if it is open and costs the same.

        Raises:
            BudgetSpentError: a limit would be passed; nothing is written.
        """
        with self._connected() as link:
            link.execute("BEGIN IMMEDIATE")
            entries = standing(link, self._path)
            for entry in entries:
                if entry.charge.key == charge.key and not entry.committed:
                    if entry.charge == charge:
                        return entry.reservation
                    # Nothing of it has left, and nothing will.
                    append(link, "released", {"reservation": entry.reservation})
                    entries = [each for each in entries if each is not entry]
            for limit in limits:
                self._check([each.charge for each in entries], charge, limit)
            name = secrets.token_hex(8)
            append(link, "reserved", {"reservation": name, **asdict(charge)})
        return name

    def commit(self, reservation: str) -> None:
        """Note that a result is ready to leave."""
        with self._connected() as link:
            link.execute("BEGIN IMMEDIATE")
            append(link, "committed", {"reservation": reservation})

    def entries(self) -> list[Entry]:
        """All charges that stand, reserved or committed, in order."""
        with self._connected() as link:
            return standing(link, self._path)

    def spent(self, *, delta: float, study: str | None = None) -> float:
        """Epsilon of everything that stands, or of one study; what is reserved counts."""
        charges = [entry.charge for entry in self.entries()]
        return self._epsilon([each for each in charges if study in (None, each.study)], delta)

    def head(self) -> tuple[int, str]:
        """Number and hash of the last line; 0 and zeros of an empty ledger."""
        with self._connected() as link:
            return end(link)

    def hash_of(self, number: int) -> str:
        """Hash of a line; empty where there is none."""
        with self._connected() as link:
            row = link.execute("SELECT hash FROM lines WHERE number = ?", (number,)).fetchone()
        return str(row[0]) if row else ""

    def verify(self) -> int:
        """Check the whole chain.

        Returns:
            The number of lines.

        Raises:
            DataError: names the first line that does not fit.
        """
        with self._connected() as link:
            return count(link, self._path)

    def _check(self, before: Sequence[Charge], charge: Charge, limit: Limit) -> None:
        counted = [each for each in before if limit.study in (None, each.study)]
        mechanisms = [each.mechanism for each in (*counted, charge)]
        most = limit.epsilon * (1.0 + EXCESS)
        if not stays_within(mechanisms, most, delta=limit.delta, accountant=self._accountant):
            with_it = self._epsilon([*counted, charge], limit.delta)
            spent = self._epsilon(counted, limit.delta)
            raise BudgetSpentError(
                f"epsilon {spent:.3f} is spent, and would be {with_it:.3f} after this round; "
                f"the limit is {limit.epsilon:g} at delta {limit.delta:g}",
                where=limit.where,
                remedy="sit the study out, or let the hospital raise its limit; see cardionets-client budget",
                facts={
                    "epsilon_spent": spent,
                    "epsilon_after": with_it,
                    "epsilon_limit": limit.epsilon,
                    "delta": limit.delta,
                },
            )

    def _epsilon(self, charges: Sequence[Charge], delta: float) -> float:
        return epsilon_of([each.mechanism for each in charges], delta=delta, accountant=self._accountant)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            link = sqlite3.connect(self._path, timeout=WAIT_S, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise StorageFailedError(
                f"the ledger cannot be opened ({error})",
                where=str(self._path),
                remedy="mount the disk, and let this account write there",
            ) from error
        try:
            link.execute("PRAGMA journal_mode = WAL")
            link.execute("PRAGMA synchronous = FULL")
            yield link
            if link.in_transaction:
                link.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise StorageFailedError(
                f"the ledger cannot be read or written ({error})",
                where=str(self._path),
                remedy="look after the disk, then run again: what was reserved stays reserved",
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"the file is not a ledger, or is torn ({error})",
                where=str(self._path),
                remedy="restore the ledger from its backup; a new one would forget what was spent",
            ) from error
        finally:
            # What was not committed is rolled back.
            link.close()
