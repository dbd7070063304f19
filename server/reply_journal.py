"""The server's journal: every reply that was accepted, and every one that was not, with its code and reason.

Hash-chained lines in ``journal.jsonl`` of the run folder, on the disk before the study goes on. It names
sites, rounds, digests and bytes, and the heads of the sites' journals, whose own lines name its heads.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cardionets_core.audit import journal
from cardionets_core.durable import on_disk
from cardionets_core.exchange.messages import Order
from server.head_trust import HeadTrust
from server.heads import SiteHeads

JOURNAL = "journal.jsonl"
REASON_LENGTH = 300


class ReplyJournal:
    """The journal of one run folder.

    Args:
        folder: the run folder.
        study_digest: of the study; names the journal where its head is signed.
        trust: keys for the heads; of nobody by default.
    """

    def __init__(self, folder: Path, *, study_digest: str = "", trust: HeadTrust | None = None) -> None:
        self._folder = folder
        self.refusals: Counter[str] = Counter()
        """Site to the number of its replies that were refused since the server started."""
        with on_disk(folder, keeps="all finished rounds are whole"):
            torn = journal.mend(folder / JOURNAL)
        if torn:
            self._append("journal-mended", {"torn_bytes": torn})
        self.heads = SiteHeads(
            folder / JOURNAL, self._append, study_digest=study_digest, trust=trust or HeadTrust()
        )

    def accepted(self, order: Order, *, site: str, attempt: int, digest: str, nbytes: int) -> None:
        """A reply is stored."""
        facts = {**_facts(order), "attempt": attempt, "site": site, "digest": digest, "bytes": nbytes}
        self._append("reply-accepted", facts)

    def refused(self, order: Order, *, site: str, node: int, code: str, reason: str) -> None:
        """A reply was refused, or none came."""
        self.refusals[site] += bool(reason)
        # A node's number has more digits than a JSON reader may keep.
        facts = {**_facts(order), "site": site, "node": str(node), "code": code}
        self._append("reply-refused", {**facts, "reason": reason[:REASON_LENGTH]})

    def kept(self, *, phase: int, round_number: int, part: str, sites: list[str]) -> None:
        """A round was taken up again with replies that lay in its store."""
        self._append(
            "replies-kept", {"phase": phase, "round": round_number, "part": part, "sites": ",".join(sites)}
        )

    def noted(self, event: str, facts: dict[str, str | int | float]) -> None:
        """Anything else that the run's history should tell."""
        self._append(event, facts)

    def _append(self, event: str, facts: dict[str, str | int | float]) -> None:
        with on_disk(self._folder, keeps="all finished rounds are whole"):
            journal.append(self._folder / JOURNAL, event, facts)


def _facts(order: Order) -> dict[str, str | int | float]:
    return {
        "kind": order.kind,
        "split": order.split if order.kind == "evaluate" else "",
        "study": order.name.study_digest,
        "phase": order.name.phase,
        "round": order.name.round,
        "attempt": order.name.attempt,
    }
