"""The steps of a secure sum on the server, each a question with a store of its own (rows 10 and 11).

Comes in: a session, what to send in a step, and who may be asked. Goes out: good answers, stored on the disk
as they come and handed in to the protocol. Who answered a step is not asked it again. Which step
follows which is ``secure_gather``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import ReplyRefusedError, SecureSumError
from cardionets_core.exchange.messages import Order, Reply, RoundName
from cardionets_core.exchange.secure import SecurePart, SecureStep, Step
from cardionets_core.privacy.secure_sum import Coordinator
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.privacy.secure_sum.vector import VectorForm
from server.gather import Gather, Gathered, MakeOrders, Serving
from server.members import Members
from server.open_round import OpenRound
from server.orders import order_bytes
from server.reply_journal import ReplyJournal
from server.round_folder import Part
from server.round_store import RoundStore
from server.rounds import SiteLink

Take = Callable[[bytes], None]


@dataclass(kw_only=True)
class Session:
    """One attempt: the protocol's state, and where its steps are stored."""

    name: RoundName
    part: SecurePart
    coordinator: Coordinator
    form: VectorForm


class SecureSteps:
    """Asks the steps.

    Args:
        study: with secure aggregation.
        link: the way to the sites.
        members: which node is which site.
        journal: hears of every reply.
        tell: called with a question, a round and a site's row.
    """

    def __init__(
        self,
        study: Study,
        *,
        link: SiteLink,
        members: Members,
        journal: ReplyJournal,
        tell: Callable[[Part, OpenRound, dict[str, Any]], None],
    ) -> None:
        self._study = study
        self._link = link
        self._members = members
        self._journal = journal
        self._tell = tell

    def ask(
        self,
        session: Session,
        asked: OpenRound,
        step: Step,
        able: Serving,
        found: Gathered,
        take: Take,
        *,
        message: Callable[[str], bytes] = lambda site: b"",
    ) -> None:
        """Ask one step of those who have not answered it yet; hand every good answer in."""
        store = self._store_of(session, asked, step)
        for raw in self.stored(session, asked, step):
            take(raw)

        def orders(nodes: list[int], attempt: int) -> dict[int, Order]:
            return {
                node: Order(
                    kind="secure",
                    name=session.name,
                    study_json=self._study.to_json(),
                    secure=SecureStep(
                        step=step, part=session.part, message=message(self._members.site(node))
                    ),
                )
                for node in nodes
            }

        def judge(reply: Reply, order: Order, node: int, site: str) -> tuple[Reply, float]:
            try:
                take(reply.secure)
            except SecureSumError as error:
                raise ReplyRefusedError(f"site {site}: {error.what}", where="secure sum") from error
            return reply, 1.0

        self._gather(session, asked, store, able, orders, judge, found)

    def masked(
        self,
        session: Session,
        asked: OpenRound,
        able: Serving,
        found: Gathered,
        plain: MakeOrders,
        deliveries: Mapping[str, Any],
    ) -> list[str]:
        """The question itself; returns the sites whose masked vectors are stored."""
        store = self._store_of(session, asked, "mask")

        def orders(nodes: list[int], attempt: int) -> dict[int, Order]:
            made = plain(nodes, session.name.attempt)
            asked.folder.add({"bytes_sent": order_bytes(made)})
            for node in made:
                told = deliveries[self._members.site(node)].to_bytes()
                step = SecureStep(step="mask", part=session.part, message=told)
                made[node] = replace(made[node], secure=step)
            return made

        def judge(reply: Reply, order: Order, node: int, site: str) -> tuple[Reply, float]:
            masked, size = reply.masked, session.form.size
            if masked is None or masked.shape != (size,) or reply.modules or reply.sums or reply.samples:
                raise ReplyRefusedError(
                    f"site {site} was left out of the round: it sent no masked vector of {size} numbers",
                    where="reply",
                )
            return reply, 1.0

        self._gather(session, asked, store, able, orders, judge, found)
        return store.sites()

    def _gather(
        self,
        session: Session,
        asked: OpenRound,
        store: RoundStore,
        able: Serving,
        orders: MakeOrders,
        judge: Any,
        found: Gathered,
    ) -> None:
        missing = {self._members.site(node) for node in able(False, ())} - set(store.sites())
        if not missing:
            return
        gather = Gather(
            self._link,
            self._members,
            self._journal,
            store=store,
            make_orders=orders,
            judge=judge,
            tell=lambda row: self._tell(session.part, asked, row) if row["status"] != "stored" else None,
            deadline_s=self._study.sites.deadline_s,
        )
        part = gather.run(able, first_attempt=session.name.attempt)
        asked.folder.add({"bytes_received": part.bytes_received})
        found.failed |= part.failed

    def vectors(
        self, session: Session, asked: OpenRound, survivors: Sequence[str]
    ) -> Iterator[tuple[str, Ring]]:
        """The masked vectors of some sites, one after the other, mapped from the disk."""
        store = self._store_of(session, asked, "mask")
        for site in survivors:
            yield site, np.load(store.folder / site / "masked.npy", mmap_mode="r", allow_pickle=False)

    def stored(self, session: Session, asked: OpenRound, step: Step) -> Iterator[bytes]:
        """The messages of a step that lie on the disk, in the order of the sites."""
        store = self._store_of(session, asked, step)
        for site in store.sites():
            yield (store.folder / site / "secure.json").read_bytes()

    def _store_of(self, session: Session, asked: OpenRound, step: Step) -> RoundStore:
        return asked.folder.step_store(session.part, session.name.attempt, step)


def session_facts(session: Session) -> dict[str, str | int | float]:
    """A session's name, for a line of the journal."""
    name = session.name
    return {
        "study": name.study_digest,
        "phase": name.phase,
        "round": name.round,
        "attempt": name.attempt,
        "part": session.part,
    }
