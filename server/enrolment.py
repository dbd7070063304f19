"""Who can serve a phase: a census of the sites, and of those alone that it has not asked yet.

Comes in: the nodes that are connected. Goes out: the nodes that serve, in the order of the sites' names, and
the sites that did and are gone. A site that joins, or comes back, is asked at the start of the next round;
one that refused for a reason that may pass is asked again then too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from cardionets_core.config.study import Study
from cardionets_core.errors import (
    ModalityMissingError,
    PhaseNotPermittedError,
    QuorumNotMetError,
    TooFewPatientsError,
    UnreachableError,
)
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.tasks import Task
from server.checkpoints import Checkpoint
from server.members import Members
from server.question import Question
from server.reply_journal import ReplyJournal
from server.rounds import LATE, Answer, SiteLink, Waiting, pauses

# What a site answers of its data and policy holds for the phase; anything else may pass.
FINAL = frozenset({PhaseNotPermittedError.code, ModalityMissingError.code, TooFewPatientsError.code})
JOIN_WAIT_S = 60.0
"""How long a round that could begin waits for the census of a site that has just come."""


class Enrolment:
    """The census of the phase that is running.

    Args:
        study: the study.
        link: the way to the sites.
        members: learns names and facts.
        tasks: of the phases.
        journal: hears of refusals.
        tell: called with phase, round, kind of event and its facts.
    """

    def __init__(
        self,
        study: Study,
        *,
        link: SiteLink,
        members: Members,
        tasks: Sequence[Task],
        journal: ReplyJournal,
        tell: Callable[..., None],
    ) -> None:
        self._study = study
        self._link = link
        self._members = members
        self._tasks = tasks
        self._journal = journal
        self._tell = tell
        self._phase = -1
        self._censuses = 0
        self._code_of: dict[int, str] = {}
        self._served: set[str] = set()
        self._connected: set[int] = set()
        self._question = self._new_question()

    def serving(self, phase: int, checkpoint: Checkpoint, *, counted: Collection[str] = ()) -> list[int]:
        """The nodes that serve a phase now, external ones among them, in the order of the sites' names.

        Waits until enough sites are connected, at most until the deadline.

        Args:
            phase: index of the phase.
            checkpoint: names the frozen modules.
            counted: sites that count, connected or not: their replies are there already.

        Raises:
            QuorumNotMetError: too few sites can serve.
        """
        minimum = self._study.sites.minimum
        if phase != self._phase:
            self._begin(phase)
        self._wait_for_nodes(minimum, counted)
        for _ in range(self._study.sites.attempts):
            self._census(checkpoint)
            if self._count(self._able(), counted) >= minimum or not self._may_pass():
                break
        able = self._able()
        count = self._count(able, counted)
        if count < minimum:
            raise QuorumNotMetError(
                f"{count} site(s) can serve, the study needs {minimum}",
                where=f"phase {phase + 1} ({self._tasks[phase].name})",
                remedy="see each site's code; mend it, then resume: finished rounds are kept",
            )
        return sorted(able, key=self._members.site)

    def members_of(self, nodes: Collection[int]) -> list[int]:
        """Those of the nodes that train."""
        return [node for node in nodes if not self._members.is_external(node)]

    def absent(self) -> dict[str, str]:
        """Sites that trained, or could have, earlier in the phase and cannot now: name to code."""
        codes = {self._members.site(node): self._code_of.get(node, "") for node in self._connected}
        found = {site: codes.get(site, UnreachableError.code) for site in sorted(self._served)}
        return {site: code for site, code in found.items() if code}

    def close(self) -> None:
        """Stop waiting for any census."""
        self._question.close()

    def _begin(self, phase: int) -> None:
        self._question.close()
        self._phase, self._code_of, self._censuses = phase, {}, 0
        self._served = set()
        self._question = self._new_question()

    def _new_question(self) -> Question:
        return Question(self._link, ttl_s=self._study.sites.deadline_s * self._study.sites.attempts)

    def _able(self) -> list[int]:
        """Connected nodes that serve, one a site."""
        return [
            node
            for node, code in self._code_of.items()
            if not code
            and node in self._connected
            and self._members.node(self._members.site(node)) in (node, None)
        ]

    def _may_pass(self) -> bool:
        """Whether a site sits out for a reason that another census may find gone."""
        return any(code and code not in FINAL and code != LATE for code in self._code_of.values())

    def _look(self) -> None:
        nodes = self._link.nodes()
        self._members.connect(nodes)
        for node in sorted(self._connected - set(nodes)):
            # It is asked anew when it comes back.
            if self._code_of.pop(node, None) == "":
                site = self._members.site(node)
                text = "is not connected any more"
                self._tell(self._phase, 0, "census", site=site, code=UnreachableError.code, text=text)
        self._connected = set(nodes)

    def _count(self, nodes: Collection[int], counted: Collection[str]) -> int:
        """How many sites train or have trained."""
        return len({*map(self._members.site, self.members_of(nodes)), *counted})

    def _wait_for_nodes(self, minimum: int, counted: Collection[str]) -> None:
        """Wait while sites that are needed are not connected."""
        start, deadline_s, rest = time.time(), self._study.sites.deadline_s, pauses(self._link)
        end = time.monotonic() + deadline_s
        while True:
            self._look()
            hopeful = [n for n in self._connected if self._code_of.get(n, "") not in FINAL]
            candidates = self._count(hopeful, counted)
            missed = UnreachableError.code in self.absent().values()
            connected = len({*map(self._members.site, self._connected), *counted})
            if connected >= minimum and (candidates >= minimum or not missed):
                break
            if time.monotonic() > end:
                raise QuorumNotMetError(
                    f"{candidates} site(s) are connected, the study needs {minimum}",
                    where="waiting for sites",
                    remedy="ask the sites to start their clients, then resume",
                )
            self._link.on_wait(Waiting(reason="sites", since={}, until=start + deadline_s))
            time.sleep(next(rest))
        self._link.on_wait(None)

    def _census(self, checkpoint: Checkpoint) -> None:
        """Ask every connected site that was not asked, or whose reason may have passed; the others stand."""
        self._censuses += 1
        task = self._tasks[self._phase]
        order = Order(
            kind="census",
            name=RoundName(
                study_digest=self._study.digest, phase=self._phase, round=0, attempt=self._censuses
            ),
            study_json=self._study.to_json(),
            frozen={module: checkpoint.digests[module] for module in task.reads},
        )
        asked = [
            node
            for node in sorted(self._connected - self._question.nodes)
            if node not in self._code_of or (self._code_of[node] and self._code_of[node] not in FINAL)
        ]
        for answer, answered in self._question.send(dict.fromkeys(asked, order)):
            self._take(answer, answered, task)
        able = len(self.members_of(self._able()))
        wait_s = self._study.sites.deadline_s
        if able >= self._study.sites.minimum:
            wait_s = min(wait_s, JOIN_WAIT_S) if asked else 0.0
        for answer, answered in self._question.answers(until=time.monotonic() + wait_s):
            self._take(answer, answered, task)
        for node in self._question.nodes - set(self._code_of):
            self._code_of[node] = LATE
            site = self._members.site(node)
            self._tell(self._phase, 0, "census", site=site, code=LATE, text=f"sits out: {LATE}")

    def _take(self, answer: Answer, order: Order, task: Task) -> None:
        heads = self._journal.heads
        site, code, reason = self._members.enrol(
            answer, order, task=self._study.phases[self._phase].title, check=heads.take
        )
        self._code_of[answer.node] = code
        if not code and not self._members.is_external(answer.node):
            self._served.add(site)
        part = "measures only" if self._members.is_external(answer.node) else "takes part"
        text = f"sits out: {code} {reason}".rstrip() if code else part
        if reason:
            self._journal.refused(order, site=site, node=answer.node, code=code, reason=reason)
        self._tell(self._phase, 0, "census", site=site, code=code, text=text)
