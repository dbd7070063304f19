"""One question of a round whose answers are only ever seen as a sum (rows 10 to 12 of the walk).

Comes in: a question as plain rounds ask it, and who may be asked. Goes out: one stored reply that stands for
all sites together. A session has five steps, each a question of its own with a store of its own: what was
collected lies on the disk before the next step is sent, so a server that was killed goes on where it stopped.
Once survivors were named, their sum may become known, and the session is the round's for good: it is taken up
again and again, and no other attempt begins. The protocol is ``privacy.secure_sum``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.errors import QuorumNotMetError, SecureSumError
from cardionets_core.exchange.secure import SecurePart
from cardionets_core.privacy.secure_sum import (
    Confirmation,
    Coordinator,
    KeyAdvert,
    ShareBundle,
    UnmaskReply,
)
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.training.secure_round import Question, form_of, reply_of, secure_of, terms_of
from server.gather import Gathered, MakeOrders, Serving
from server.members import Members
from server.open_round import OpenRound
from server.reply_journal import ReplyJournal
from server.round_folder import Part
from server.rounds import SiteLink
from server.secure_steps import SecureSteps, Session, session_facts


class SecureGather:
    """Asks one question so that its answers can be added and not seen.

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
        self._secure = secure_of(study)
        self._members = members
        self._journal = journal
        self._steps = SecureSteps(study, link=link, members=members, journal=journal, tell=tell)

    def run(
        self, part: SecurePart, asked: OpenRound, able: Serving, *, orders: MakeOrders, minimum: int = 0
    ) -> Gathered:
        """Ask, in as many attempts as the study allows, until a sum is opened.

        Args:
            part: which question.
            asked: the round.
            able: the nodes that may be asked.
            orders: makes the orders that the masked vectors answer.
            minimum: sites without which no sum is opened; at least the threshold are needed in any case.

        Raises:
            QuorumNotMetError: a session that is bound waits for more of its sites.
        """
        folder, found = asked.folder, Gathered()
        if folder.get(f"summed_{part}", None) is not None:
            return Gathered(attempt=folder.get(f"attempt_{part}", 0))
        allowed = self._on_roster(able)
        for _ in range(self._study.sites.attempts):
            bound = folder.get(f"bound_{part}", None)
            attempt = bound or int(folder.get(f"attempt_{part}", 0)) + 1
            folder.note({f"attempt_{part}": attempt})
            found.attempt = attempt
            session = self._session(part, asked, attempt)
            if bound is not None:
                self._again(session, asked)
            elif not self._collect(session, asked, allowed, orders, found, minimum):
                continue
            self._open(session, asked, found)
            return found
        return found

    def contributors(self, part: Part, asked: OpenRound) -> list[str]:
        """Sites whose vectors are in a sum."""
        names: list[str] = asked.folder.get(f"summed_{part}", None) or []
        return names

    def _session(self, part: SecurePart, asked: OpenRound, attempt: int) -> Session:
        name = replace(asked.name, attempt=attempt)
        checkpoint = asked.checkpoint
        sizes = {m: checkpoint.layouts[m].size for m in asked.task.trains}
        question = Question(task=asked.task, part=part, measures=asked.measure and part == "train")
        return Session(
            name=name,
            part=part,
            coordinator=Coordinator(terms_of(self._study, name, part)),
            form=form_of(self._study, question, sizes),
        )

    def _collect(
        self,
        session: Session,
        asked: OpenRound,
        able: Serving,
        orders: MakeOrders,
        found: Gathered,
        minimum: int,
    ) -> bool:
        """Steps 1 to 3; whether enough vectors came. Afterwards the session is bound."""
        coordinator = session.coordinator
        try:
            self._steps.ask(
                session,
                asked,
                "advertise",
                able,
                found,
                lambda raw: coordinator.add_advert(KeyAdvert.from_bytes(raw)),
            )
            shown = coordinator.close_adverts()
            self._steps.ask(
                session,
                asked,
                "share",
                self._only(able, shown.names),
                found,
                lambda raw: coordinator.add_bundle(ShareBundle.from_bytes(raw)),
                message=lambda site: shown.to_bytes(),
            )
            deliveries = coordinator.close_bundles()
            masked = self._steps.masked(
                session, asked, self._only(able, deliveries), found, orders, deliveries
            )
            if len(masked) < minimum:
                return False
            coordinator.close_masked(masked)
        except SecureSumError as error:
            self._journal.noted(
                "secure-sum-failed", {**session_facts(session), "reason": error.reason, "site": error.site}
            )
            return False
        asked.folder.note(
            {f"bound_{session.part}": session.name.attempt, f"survivors_{session.part}": masked}
        )
        return True

    def _open(self, session: Session, asked: OpenRound, found: Gathered) -> None:
        """Steps 4 and 5, and the sum."""
        coordinator, part, folder = session.coordinator, session.part, asked.folder
        survivors: list[str] = folder.get(f"survivors_{part}", [])
        among = self._only(lambda afresh, counted: [self._node(s) for s in survivors], survivors)
        named = coordinator.close_masked(survivors)
        try:
            self._steps.ask(
                session,
                asked,
                "confirm",
                among,
                found,
                lambda raw: coordinator.add_confirmation(Confirmation.from_bytes(raw)),
                message=lambda site: named.to_bytes(),
            )
            request = coordinator.unmask_request()
            signed = [entry.site for entry in request.confirmations]
            self._steps.ask(
                session,
                asked,
                "unmask",
                self._only(among, signed),
                found,
                lambda raw: coordinator.add_reply(UnmaskReply.from_bytes(raw)),
                message=lambda site: request.to_bytes(),
            )
            total = coordinator.total(self._steps.vectors(session, asked, survivors))
        except SecureSumError as error:
            raise QuorumNotMetError(
                f"the sum of {len(survivors)} sites cannot be opened yet: {error.what}",
                where=f"phase {session.name.phase + 1} ({asked.task.name}), round {session.name.round}",
                remedy="bring the sites back and resume: what they sent is kept, and no other sum is begun",
            ) from error
        self._store(session, asked, total, survivors)

    def _store(self, session: Session, asked: OpenRound, total: Ring, survivors: list[str]) -> None:
        checkpoint, part = asked.checkpoint, session.part
        together = reply_of(
            total,
            session.form,
            parties=len(survivors),
            name=session.name,
            secure=self._secure,
            layouts=checkpoint.layouts,
            sent=checkpoint.values,
        )
        asked.folder.store(part).accept(together)
        asked.folder.note({f"summed_{part}": survivors})
        self._journal.noted("secure-sum-opened", {**session_facts(session), "sites": ",".join(survivors)})

    def _again(self, session: Session, asked: OpenRound) -> None:
        """Hand the stored messages of steps 1 and 2 in once more: the session is bound."""
        coordinator = session.coordinator
        for raw in self._steps.stored(session, asked, "advertise"):
            coordinator.add_advert(KeyAdvert.from_bytes(raw))
        coordinator.close_adverts()
        for raw in self._steps.stored(session, asked, "share"):
            coordinator.add_bundle(ShareBundle.from_bytes(raw))
        coordinator.close_bundles()

    def _on_roster(self, able: Serving) -> Serving:
        return self._only(able, self._secure.roster)

    def _only(self, able: Serving, names: Collection[str]) -> Serving:
        def some(afresh: bool, counted: Collection[str]) -> list[int]:
            nodes = able(afresh, counted)
            return [n for n in nodes if self._members.site(n) in names and not self._members.is_external(n)]

        return some

    def _node(self, site: str) -> int:
        node = self._members.node(site)
        return -1 if node is None else node
