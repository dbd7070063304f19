"""The site's journal: where it lies, its end, and the heads of the coordinators' journals that stand in it.

Comes in: the journal's file. Goes out: its name, and heads for ``export-heads``. Computes and imports little,
since ``status`` and ``journal`` look into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cardionets_core.audit import journal
from cardionets_core.audit.against import Witnessed
from cardionets_core.audit.journal import bodies
from cardionets_core.errors import DataError
from cardionets_core.exchange.heads import server_journal

JOURNAL = "journal.jsonl"
"""Its name in the site's folder of states."""


def mend(path: Path) -> None:
    """Take the torn end of a line off, which a crash left, and say so in a line."""
    torn = journal.mend(path)
    if torn:
        journal.append(path, "journal-mended", {"torn_bytes": torn})


def server_heads(path: Path) -> Iterator[Witnessed]:
    """The heads of coordinators' journals that this site has written down, in their order.

    Raises:
        DataError: a line cannot be read.
    """
    for number, body in enumerate(bodies(path) if path.exists() else (), start=1):
        try:
            if "server_head" in body:
                yield Witnessed(
                    journal=server_journal(str(body["study"])),
                    lines=int(body["server_lines"]),
                    hash=str(body["server_head"]),
                    signature=str(body.get("server_signature", "")),
                    key=str(body.get("server_key", "")),
                    time_s=float(body["time_s"]),
                )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"line {number} names a head of the coordinator's journal that cannot be read",
                where=f"{path}:{number}",
                remedy="look at the journal with: cardionets-client journal verify",
            ) from error
