"""One question of a round, put to its sites until enough have answered (rows 10 and 11 of the walk).

Comes in: who may be asked, how their orders are made, how a reply is judged. Goes out: good replies in the
store, a row for each site that gave none. Accepted replies are kept over attempts and over restarts: an
attempt asks only the sites that are missing, and waits for those that were asked before and are late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from cardionets_core.errors import FrozenModuleMissingError, ReplyRefusedError
from cardionets_core.exchange.messages import Order, Reply
from server.members import Members
from server.orders import order_bytes
from server.question import Question
from server.reply_checks import check_sender, check_values
from server.reply_journal import ReplyJournal
from server.round_store import RoundStore
from server.rounds import Answer, SiteLink, Waiting

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
MakeOrders = Callable[[list[int], int], dict[int, Order]]
Serving = Callable[[bool, Collection[str]], Collection[int]]
"""The nodes that may be asked: whether to look afresh, and the sites whose replies are stored already."""
Judge = Callable[[Reply, Order, int, str], tuple[Reply, float]]


@dataclass(kw_only=True)
class Gathered:
    """How the asking went.

    Attributes:
        attempt: the last one, from 1.
        failed: row of each site that was asked and whose reply is not in the store.
        bytes_sent: of all orders.
        bytes_received: of all replies, refused ones too.
    """

    attempt: int = 0
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    bytes_sent: int = 0
    bytes_received: int = 0


class Gather:
    """Asks one question.

    Args:
        link: the way to the sites.
        members: which node is which site.
        journal: hears of every reply.
        store: receives the good ones.
        make_orders: the orders for some nodes in an attempt.
        judge: raises ``ReplyRefusedError``, or gives what to store of the reply and the weight of its
            samples; gets the reply, its order, the node and the site.
        tell: called with a site's row when its answer is known.
        deadline_s: of one attempt.
        attempts: how many there may be.
        minimum: stored replies that make the round; 0 if any number will do.
    """

    def __init__(
        self,
        link: SiteLink,
        members: Members,
        journal: ReplyJournal,
        *,
        store: RoundStore,
        make_orders: MakeOrders,
        judge: Judge,
        tell: Callable[[dict[str, Any]], None],
        deadline_s: float,
        attempts: int = 1,
        minimum: int = 0,
    ) -> None:
        self._link = link
        self._members = members
        self._journal = journal
        self._store = store
        self._make_orders = make_orders
        self._judge = judge
        self._tell = tell
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._minimum = minimum
        self._question = Question(link, ttl_s=deadline_s * attempts)
        self._asked_now: set[str] = set()
        self.found = Gathered()

    def run(self, serving: Serving, *, first_attempt: int = 1) -> Gathered:
        """Ask until enough sites have answered or the attempts are over.

        An attempt ends when everybody has answered, or at its deadline; two begin at least a second apart,
        and twice as far each time, so that a fault of some seconds does not use them up. A reply that comes
        before this returns is used; a site whose reply has not come by then is ``late``.

        Args:
            serving: gives the nodes that may be asked, anew for each attempt.
            first_attempt: number of the first attempt.
        """
        begun = time.monotonic()
        for attempt in range(first_attempt, first_attempt + self._attempts):
            if attempt > first_attempt:
                self._rest(begun + min(FIRST_PAUSE_S * 2.0 ** (attempt - first_attempt - 1), LONGEST_PAUSE_S))
            begun = time.monotonic()
            allowed = set(serving(attempt > first_attempt, self._store.sites()))
            self.found.attempt = attempt
            self._asked_now = set()
            self._send(sorted(allowed, key=self._members.site), attempt)
            for answer, order in self._question.answers(until=time.monotonic() + self._deadline_s):
                self._take(answer, order, allowed)
                del answer
            if len(self._store.sites()) >= self._minimum:
                break
        for answer, order in self._question.close():
            self._take(answer, order, set())
        for site in self._store.sites():
            self.found.failed.pop(site, None)
        return self.found

    def _rest(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            self._link.on_wait(Waiting(reason="another-attempt", since={}, until=time.time() + left))
            time.sleep(min(left, 0.5))
        self._link.on_wait(None)

    def _send(self, nodes: list[int], attempt: int) -> None:
        done = {*self._store.sites(), *(self._members.site(node) for node in self._question.nodes)}
        missing = [node for node in nodes if self._members.site(node) not in done]
        if not missing:
            return
        self._asked_now |= {self._members.site(node) for node in missing}
        orders = self._make_orders(missing, attempt)
        self.found.bytes_sent += order_bytes(orders)
        for answer, order in self._question.send(orders):
            self._take(answer, order, set())

    def _take(self, answer: Answer, order: Order, allowed: set[int]) -> None:
        """Judge and store one answer; ask again at once where that can help."""
        site, node, attempt = self._members.site(answer.node), answer.node, self.found.attempt
        self.found.bytes_received += answer.nbytes
        code, reason = self._accept(answer, order, site)
        if code == FrozenModuleMissingError.code and self._members.holds(node):
            # The site has let a module go: everything is sent with the next order, now.
            self._members.holds(node).clear()
            if node in allowed:
                self._send([node], attempt)
                return
        if self._store.has(site):
            if not code:
                self._members.holds(node).update({*order.frozen.values(), *order.trained.values()})
                self.found.failed.pop(site, None)
                self._tell({"site": site, "status": "stored", "code": ""})
            return
        self.found.failed[site] = {
            "site": site,
            "status": "left-out",
            "code": code,
            "bytes": answer.nbytes,
            **({"reason": reason} if reason else {}),
        }
        self._tell(self.found.failed[site])
        if order.name.attempt < attempt and node in allowed and site not in self._asked_now:
            # What was outstanding from an earlier attempt has failed: this attempt has not asked yet.
            self._send([node], attempt)

    def _accept(self, answer: Answer, order: Order, site: str) -> tuple[str, str]:
        """Store a good reply; returns the code and the reason for which there is none."""
        code, reason, reply = answer.code, "", answer.reply
        if reply is not None:
            try:
                check_sender(reply, order=order, site=site)
                self._journal.heads.take(reply, order, site)
                code = reply.code
                if not code:
                    check_values(reply, site=site)
                    reply, weight = self._judge(reply, order, answer.node, site)
                    if self._store.has(site):
                        raise ReplyRefusedError(
                            f"site {site} has answered this round before; its first reply stands",
                            where="reply",
                        )
                    digest = self._store.accept(
                        reply, weight=weight, nbytes=answer.nbytes, seconds=answer.seconds
                    )
                    self._journal.accepted(
                        order, site=site, attempt=reply.name.attempt, digest=digest, nbytes=answer.nbytes
                    )
            except ReplyRefusedError as error:
                code, reason = error.code, error.what
        if code:
            self._journal.refused(order, site=site, node=answer.node, code=code, reason=reason)
        return code, reason
