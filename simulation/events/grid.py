"""A grid between the server and Flower's: what a schedule says happens to orders and replies here.

The server, its checks, bounds, quorum, strategies and journal are the real ones, and so are the clients: an
order to an offline site is not passed on, an attacker's honest reply is changed on its way. It stands before
the in-process grid and before that of Flower's engine alike. No deadline is waited for: a late reply is taken
off the wire and reported as Flower reports one whose time is up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from cardionets_core.config.study import Study
from cardionets_core.errors import FrozenModuleMissingError, ReplyRefusedError
from cardionets_core.exchange.messages import (
    Order,
    Reply,
    order_from_envelope,
    reply_from_envelope,
    reply_to_envelope,
)
from server.records import from_records, to_records
from server.rounds import CLIENT_APP_ERROR, NODE_UNAVAILABLE, REPLY_EXPIRED
from simulation.events.attack import attacked
from simulation.events.schedule import Attack, Fault, LabelFlip

Schedule = Sequence[Fault | Attack | LabelFlip]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """An order on its way.

    Attributes:
        message: as the server made it, without content where it was not passed on.
        order: without tensors.
        inner: its number at the grid behind; empty where it was not passed on.
        answer: what comes back in place of the site's reply.
        events: what happens to the site's reply.
    """

    message: Message
    order: Order
    inner: str = ""
    answer: Error | Reply | None = None
    events: tuple[Fault | Attack, ...] = ()


class EventfulGrid(Grid):
    """A grid that lets a schedule happen.

    Args:
        grid: the one behind.
        events: the schedule.
        study: says which task each phase has.
        seed: of the scenario, for noise.
    """

    def __init__(self, grid: Grid, events: Schedule, *, study: Study, seed: int) -> None:
        self._grid = grid
        self._events = [event for event in events if not isinstance(event, LabelFlip)]
        self._attackers = {event.site for event in self._events if isinstance(event, Attack)}
        self._study = study
        self._seed = seed
        self._sites: dict[int, str] = {}
        self._sent: dict[str, _Sent] = {}
        self._models: dict[int, dict[str, tuple[str, np.ndarray]]] = {}
        self._first: dict[tuple[str, int, str], np.ndarray] = {}
        self._count = 0

    def set_run(self, run: Any) -> None:
        """As of the grid behind."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """As of the grid behind."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """As of the grid behind."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """As of the grid behind."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """As of the grid behind."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on what reaches its site."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The reply to the first of the messages that has one."""
        for number in message_ids:
            if number in self._sent and (found := self._pull(number)) is not None:
                return [found]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push all, then pull all."""
        waiting, replies = list(self.push_messages(messages)), []
        while waiting:
            for number in list(waiting):
                for found in self.pull_messages([number]):
                    waiting.remove(number)
                    replies.append(found)
        return replies

    def _push(self, message: Message) -> str:
        self._count += 1
        number = f"e{self._count}"
        node = message.metadata.dst_node_id
        order = order_from_envelope(from_records(message.content))
        site = self._sites.get(node, "")
        events = self._of_round(site, order)
        bare = _Sent(message=message, order=_without_tensors(order), events=events)
        answer: Error | Reply | None = None
        for event in events:
            if event.kind == "offline":
                answer = Error(NODE_UNAVAILABLE, "offline by schedule")
            elif event.kind == "crash" and order.name.attempt <= 1:
                answer = Error(CLIENT_APP_ERROR, "crash by schedule")
            if answer is not None:
                break
        if answer is None and site in self._attackers and order.kind == "train":
            answer = self._learn(node, order)
        if answer is not None:
            self._sent[number] = _Sent(message=message, order=bare.order, answer=answer)
            return number
        (inner,) = self._grid.push_messages([message])
        self._sent[number] = _Sent(message=message, order=bare.order, inner=inner, events=events)
        return number

    def _pull(self, number: str) -> Message | None:
        sent = self._sent[number]
        if sent.answer is not None:
            del self._sent[number]
            if isinstance(sent.answer, Error):
                return Message(sent.answer, reply_to=sent.message)
            return Message(to_records(reply_to_envelope(sent.answer)), reply_to=sent.message)
        found = list(self._grid.pull_messages([sent.inner]))
        if not found:
            return None
        del self._sent[number]
        (message,) = found
        if message.has_error():
            return message
        if sent.order.kind == "census":
            self._sites[sent.message.metadata.dst_node_id] = str(
                message.content.config_records["fields"]["site"]
            )
            return message
        for event in sent.events:
            message = self._let_happen(event, sent, message)
            if message.has_error():
                break
        return message

    def _let_happen(self, event: Fault | Attack, sent: _Sent, message: Message) -> Message:
        if event.kind == "late":
            return Message(Error(REPLY_EXPIRED, "late by schedule"), reply_to=sent.message)
        if event.kind == "slow":
            time.sleep(event.seconds or 0.0)
        if not isinstance(event, Attack) or sent.order.kind != "train":
            return message
        try:
            reply = reply_from_envelope(from_records(message.content))
        except ReplyRefusedError:
            return message
        if reply.code or not reply.samples:
            return message
        node = sent.message.metadata.dst_node_id
        start = {name: values for name, (_, values) in self._models.get(node, {}).items()}
        place = (reply.site, reply.name.phase)
        if event.kind == "replay":
            for name in reply.samples:
                self._first.setdefault((*place, name), reply.modules[name].values)
        first = {name: self._first[*place, name] for name in reply.samples if (*place, name) in self._first}
        changed = attacked(reply, event, start=start, first=first, seed=self._seed)
        return Message(to_records(reply_to_envelope(changed)), reply_to=sent.message)

    def _learn(self, node: int, order: Order) -> Reply | None:
        """Keep the model that an attacker gets; ask for it whole where the order only names it."""
        known = self._models.setdefault(node, {})
        for name, module in order.modules.items():
            known[name] = (order.trained.get(name, ""), module.values)
        if all(name in known and known[name][0] == digest for name, digest in order.trained.items()):
            return None
        return Reply(site=self._sites[node], name=order.name, code=FrozenModuleMissingError.code)

    def _of_round(self, site: str, order: Order) -> tuple[Fault | Attack, ...]:
        """What happens to a site in a round; a census always passes, as it names the sites."""
        if order.kind == "census" or not site:
            return ()
        phase, number = order.name.phase, order.name.round
        task = self._study.phases[phase].task
        return tuple(
            event
            for event in self._events
            if event.site == site and event.applies(task=task, phase=phase, round_number=number)
        )


def _without_tensors(order: Order) -> Order:
    return Order(kind=order.kind, name=order.name, study_json="")
