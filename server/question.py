"""One question to many sites, asked once or several times (rows 0, 10 and 11 of the walk).

Comes in: orders by node. Goes out: each answer as it arrives, with the order that it answers, without its
tensors. What is asked and not answered yet stays outstanding: it is waited for, not asked again. Nothing here
judges a reply.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cardionets_core.errors import UnreachableError
from cardionets_core.exchange.messages import Order
from server.memory import give_back
from server.rounds import LATE, Answer, SiteLink, Waiting, pauses

TTL_SPARE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    node: int
    order: Order
    start: float
    since: float


class Question:
    """One kind of order, to as many sites as are asked.

    Args:
        link: the way to the sites.
        ttl_s: for how long an answer is of use.
    """

    def __init__(self, link: SiteLink, *, ttl_s: float) -> None:
        self._link = link
        self._ttl_s = ttl_s
        self._waiting: dict[str, _Sent] = {}

    @property
    def nodes(self) -> set[int]:
        """Nodes that were asked and have not answered."""
        return {sent.node for sent in self._waiting.values()}

    def send(self, orders: dict[int, Order]) -> list[tuple[Answer, Order]]:
        """Send orders.

        Args:
            orders: node to order; emptied, so that a model is held once while it is on its way.

        Returns:
            An answer for each node that could not be reached.
        """
        start, since = time.monotonic(), time.time()
        for node, order in orders.items():
            head, known = self._link.heads(node)
            orders[node] = replace(order, head=head, known_head=known)
        bare = {node: without_tensors(order) for node, order in orders.items()}
        pushed = self._link.push(orders, ttl_s=self._ttl_s + TTL_SPARE_S)
        reached = set(pushed.values())
        for message_id, node in pushed.items():
            self._waiting[message_id] = _Sent(node=node, order=bare[node], start=start, since=since)
        return [
            (_without_reply(node, UnreachableError.code, 0.0), bare[node])
            for node in bare
            if node not in reached
        ]

    def answers(self, *, until: float) -> Iterator[tuple[Answer, Order]]:
        """Yield what arrives, until nothing is outstanding or the time has come.

        More may be sent meanwhile. Each look comes before the clock: what has arrived is used.

        Args:
            until: on the monotonic clock.
        """
        rest = pauses(self._link)
        while self._waiting:
            arrived = False
            for message_id, sent in list(self._waiting.items()):
                answer = self._link.pull(
                    message_id, node=sent.node, seconds=round(time.monotonic() - sent.start, 3)
                )
                if answer is None:
                    continue
                arrived = True
                del self._waiting[message_id]
                nbytes = answer.nbytes
                yield answer, sent.order
                del answer
                give_back(nbytes)
            if time.monotonic() >= until or not self._waiting:
                break
            self._tell(until)
            if arrived:
                rest = pauses(self._link)
            else:
                time.sleep(next(rest))
        self._link.on_wait(None)

    def close(self) -> list[tuple[Answer, Order]]:
        """Stop waiting; returns a ``late`` answer for each node that is still outstanding."""
        late = [
            (_without_reply(sent.node, LATE, round(time.monotonic() - sent.start, 3)), sent.order)
            for sent in self._waiting.values()
        ]
        self._link.abandon(list(self._waiting))
        self._waiting.clear()
        return late

    def _tell(self, until: float) -> None:
        kinds = sorted({sent.order.kind for sent in self._waiting.values()})
        self._link.on_wait(
            Waiting(
                reason=" and ".join(kinds),
                since={sent.node: sent.since for sent in self._waiting.values()},
                until=time.time() + until - time.monotonic(),
            )
        )


def without_tensors(order: Order) -> Order:
    """What remains of an order while its answer is waited for; its tensors are on the SuperLink."""
    return replace(order, modules={}, frozen_modules={}, shared={})


def ask(link: SiteLink, orders: dict[int, Order], *, deadline_s: float) -> Iterator[Answer]:
    """Send orders (emptied) and yield each answer as it arrives; then one ``late`` answer a silent node."""
    question = Question(link, ttl_s=deadline_s)
    for answer, _ in question.send(orders):
        yield answer
    for answer, _ in question.answers(until=time.monotonic() + deadline_s):
        yield answer
        del answer
    for answer, _ in question.close():
        yield answer


def _without_reply(node: int, code: str, seconds: float) -> Answer:
    return Answer(node=node, reply=None, code=code, nbytes=0, seconds=seconds)
