"""One question to many sites over Flower's grid: orders out, replies in one at a time (rows 0, 10, 11).

The only place on the server that speaks Flower, beside ``app.py``. Replies are pulled one by one, so memory
holds one reply whatever the number of sites; nothing waits longer than the deadline.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from cardionets_core.errors import QuorumNotMetError, ReplyRefusedError
from cardionets_core.exchange.messages import (
    Envelope,
    Order,
    Reply,
    order_to_envelope,
    reply_from_envelope,
)
from cardionets_core.exchange.npy import from_npy, to_npy

COLLECT_BYTES = 4_000_000
LONGEST_POLL_S = 1.0
POLL_SHARE = 0.05
NUMPY = "numpy.ndarray"
"""Flower's word for the form in which an array's bytes are."""
MESSAGE_TYPES = {
    "census": "query.census",
    "statistics": "query.statistics",
    "train": "train",
    "evaluate": "evaluate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back from one node.

    Attributes:
        node: Flower's number of the node.
        reply: the reply, or None if there is none that can be read.
        code: why there is none: ``unreachable``, ``late``, ``crashed`` or a code of the error tree.
        nbytes: bytes of the reply's arrays.
        seconds: from the first push to this reply's arrival.
    """

    node: int
    reply: Reply | None
    code: str
    nbytes: int
    seconds: float


class SiteLink:
    """The grid, as the study needs it.

    Args:
        grid: Flower's grid.
        poll_s: shortest pause between two looks for replies. Each look costs the SuperLink some of the time
            that it needs to carry those replies, so the pause grows with the wait.
    """

    def __init__(self, grid: Grid, *, poll_s: float = 0.05) -> None:
        self.grid = grid
        self.poll_s = poll_s

    def nodes(self, *, minimum: int, deadline_s: float) -> list[int]:
        """Wait until enough nodes are connected.

        Raises:
            QuorumNotMetError: they were not within the deadline.
        """
        end = time.monotonic() + deadline_s
        while len(nodes := sorted(self.grid.get_node_ids())) < minimum:
            if time.monotonic() > end:
                raise QuorumNotMetError(
                    f"{len(nodes)} site(s) are connected, the study needs {minimum}",
                    where="waiting for sites",
                    remedy="ask the sites to start their clients, then resume",
                )
            time.sleep(self.poll_s)
        return nodes

    def _pause(self, waited_s: float) -> float:
        return max(self.poll_s, min(LONGEST_POLL_S, POLL_SHARE * waited_s))

    def ask(self, orders: Mapping[int, Order], *, deadline_s: float) -> Iterator[Answer]:
        """Send orders and yield each answer as it arrives; then one ``late`` answer a silent node."""
        start = time.monotonic()
        waiting: dict[str, int] = {}
        content: dict[int, RecordDict] = {}
        messages = []
        for node, order in orders.items():
            # Sites that get the same order share one record, so a broadcast is held once.
            if id(order) not in content:
                content[id(order)] = to_records(order_to_envelope(order))
            messages.append(
                Message(
                    content[id(order)],
                    dst_node_id=node,
                    message_type=MESSAGE_TYPES[order.kind],
                    ttl=deadline_s + 60.0,
                    group_id=str(order.name.round),
                )
            )
        for node, message_id in zip(orders, self.grid.push_messages(messages), strict=True):
            if message_id is None:
                yield Answer(node=node, reply=None, code="unreachable", nbytes=0, seconds=0.0)
            else:
                waiting[message_id] = node
        del messages, content
        while waiting:
            arrived = False
            for message_id in list(waiting):
                for message in self.grid.pull_messages([message_id]):
                    arrived = True
                    answer = _answer(message, node=waiting.pop(message_id), seconds=time.monotonic() - start)
                    del message
                    large = answer.nbytes > COLLECT_BYTES
                    yield answer
                    del answer
                    if large:
                        # Flower's records refer to themselves; without this, replies pile up in memory.
                        gc.collect()
            if time.monotonic() - start > deadline_s:
                break
            if not arrived:
                time.sleep(self._pause(time.monotonic() - start))
        for node in waiting.values():
            yield Answer(node=node, reply=None, code="late", nbytes=0, seconds=time.monotonic() - start)


def to_records(envelope: Envelope) -> RecordDict:
    """Flower's records of an envelope."""
    arrays = ArrayRecord(
        {
            name: Array(str(value.dtype), tuple(value.shape), NUMPY, to_npy(value))
            for name, value in envelope.arrays.items()
        }
    )
    return RecordDict({"fields": ConfigRecord(dict(envelope.fields)), "arrays": arrays})


def from_records(records: RecordDict) -> Envelope:
    """The envelope in Flower's records.

    Raises:
        ReplyRefusedError: a record is missing or an array cannot be read.
    """
    try:
        fields = dict(records.config_records["fields"])
        found = records.array_records["arrays"].items()
        if strange := [name for name, array in found if array.stype != NUMPY]:
            raise ValueError(f"{strange} came in another form")
        arrays = {name: from_npy(array.data) for name, array in found}
    except Exception as error:  # the content is a stranger's; whatever is wrong with it, it is refused
        raise ReplyRefusedError("the reply's records cannot be read", where="reply") from error
    return Envelope(fields=fields, arrays=arrays)  # type: ignore[arg-type]


def _answer(message: Message, *, node: int, seconds: float) -> Answer:
    if message.has_error():
        # Flower's text may quote a stranger; only the fact is kept.
        return Answer(node=node, reply=None, code="crashed", nbytes=0, seconds=seconds)
    try:
        envelope = from_records(message.content)
        return Answer(
            node=node, reply=reply_from_envelope(envelope), code="", nbytes=envelope.nbytes, seconds=seconds
        )
    except ReplyRefusedError as error:
        return Answer(node=node, reply=None, code=error.code, nbytes=0, seconds=seconds)
