"""The grid, as a study needs it: who is connected, orders out, replies in one at a time (rows 0, 10, 11).

The only place on the server that speaks Flower, beside ``app.py`` and ``records.py``. Replies are pulled one
by one, so memory holds one reply whatever the number of sites. A SuperLink that is slow, locked or away for a
moment is asked again for a bounded time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from cardionets_core.errors import CodeNotApprovedError, ReplyRefusedError, UnreachableError
from cardionets_core.exchange.heads import NO_HEAD, Head
from cardionets_core.exchange.messages import Order, Reply, order_to_envelope, reply_from_envelope
from server.link.transfer import UNREADABLE
from server.memory import give_back
from server.records import array_record, from_records, with_arrays

LATE = "late"
CRASHED = "crashed"
# Flower's own numbers (flwr.common.constant.ErrorCode, not public; a test holds them to its version).
CLIENT_APP_ERROR = 2
REPLY_EXPIRED = 4
NODE_UNAVAILABLE = 5
INVALID_FAB = 7
CODES = {
    REPLY_EXPIRED: LATE,
    NODE_UNAVAILABLE: UnreachableError.code,
    INVALID_FAB: CodeNotApprovedError.code,
    UNREADABLE: ReplyRefusedError.code,
}
# Libraries whose errors mean that the SuperLink was not reached or was too busy.
WIRE_LIBRARIES = frozenset({"httpx", "httpcore", "requests", "urllib3"})
PATIENCE_S = 90.0
MESSAGE_TYPES = {
    "census": "query.census",
    "statistics": "query.statistics",
    "secure": "query.secure",
    "train": "train",
    "evaluate": "evaluate",
}

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back from one node.

    Attributes:
        node: Flower's number of the node.
        reply: the reply, or None if there is none that can be read.
        code: why there is none: ``unreachable``, ``late``, ``crashed`` or a code of the error tree.
        nbytes: bytes of the reply's arrays.
        seconds: from the push of the order to this reply's arrival.
    """

    node: int
    reply: Reply | None
    code: str
    nbytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What the study waits for; nothing waits without one.

    Attributes:
        reason: kebab-case: ``sites`` to connect, or the kind of an order.
        since: node to the Unix time at which it was asked.
        until: Unix time at which the waiting ends.
    """

    reason: str
    since: Mapping[int, float]
    until: float


class SiteLink:
    """The grid, and the pauses between two looks at it.

    Args:
        grid: Flower's grid.
        poll_s: shortest pause between two looks for replies.
        longest_poll_s: the pause grows to this while nothing arrives.
        patience_s: how long a SuperLink that does not answer is asked again.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        poll_s: float = 0.05,
        longest_poll_s: float = 0.5,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.grid = grid
        self.poll_s = poll_s
        self.longest_poll_s = longest_poll_s
        self.patience_s = patience_s
        self.on_wait: Callable[[Waiting | None], None] = lambda waiting: None
        """Called whenever the study waits, again and again, and with None when it no longer does."""
        self.heads: Callable[[int], tuple[Head, Head]] = lambda node: (NO_HEAD, NO_HEAD)
        """Gives the heads that go with an order to a node: the server's, and the one known of its site."""
        self._stale: list[str] = []

    def nodes(self) -> dict[int, str]:
        """The nodes that are connected now, by number, with the name of their registration or ``""``."""
        found = self._patiently(lambda: list(self.grid.get_nodes()), "looking for sites")
        return {int(info.node_id): str(getattr(info, "name", "") or "") for info in found}

    def push(self, orders: dict[int, Order], *, ttl_s: float) -> dict[str, int]:
        """Send orders.

        Args:
            orders: node to order; emptied once they are laid out, so that a model is held once from then on.
            ttl_s: for how long an answer is of use.

        Returns:
            Message number to node; a node that is not among them could not be reached.
        """
        if not orders:
            return {}
        arrays: dict[tuple[int, ...], ArrayRecord] = {}
        laid_out: dict[int, tuple[RecordDict, str, str]] = {}
        nbytes = 0
        for node, order in orders.items():
            # Sites that get the same tensors share one record of them, so a broadcast is held once.
            same = (id(order.modules), id(order.frozen_modules), id(order.shared))
            envelope = order_to_envelope(order)
            if same not in arrays:
                nbytes += envelope.nbytes
                arrays[same] = array_record(envelope)
            records = with_arrays(envelope, arrays[same])
            laid_out[node] = (records, MESSAGE_TYPES[order.kind], str(order.name.round))
            del envelope, records
        orders.clear()
        arrays.clear()
        del order

        def send() -> dict[str, int]:
            messages = [
                Message(records, dst_node_id=node, message_type=kind, ttl=ttl_s, group_id=group)
                for node, (records, kind, group) in laid_out.items()
            ]
            numbers = list(self.grid.push_messages(messages))
            if len(numbers) != len(messages):
                # One of Flower's grids leaves out what it could not store.
                named = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
                return {number: named[number] for number in numbers if number in named}
            pairs = zip(numbers, laid_out, strict=True)
            return {number: node for number, node in pairs if number is not None}

        pushed = self._patiently(send, "sending orders")
        laid_out.clear()
        give_back(nbytes)
        return pushed

    def pull(self, message_id: str, *, node: int, seconds: float) -> Answer | None:
        """The answer to a message, or None if there is none yet."""
        for message in self._patiently(
            lambda: list(self.grid.pull_messages([message_id])), "fetching replies"
        ):
            return _answer(message, node=node, seconds=seconds)
        return None

    def abandon(self, message_ids: list[str]) -> None:
        """Give up waiting for replies; they are taken off the SuperLink when they come, and not looked at."""
        self._stale += message_ids
        self._stale = [
            number
            for number in self._stale
            if not self._patiently(lambda n=number: list(self.grid.pull_messages([n])), "fetching replies")  # type: ignore[misc]
        ]

    def _patiently(self, call: Callable[[], Found], doing: str) -> Found:
        """What a call to the SuperLink gives, asked again while it is merely away or busy.

        Raises:
            UnreachableError: it did not answer in time, or refused.
        """
        end, pause = time.monotonic() + self.patience_s, self.poll_s
        while True:
            try:
                return call()
            except Exception as error:
                fault = wire_fault(error)
                if not fault:
                    raise
                if fault == "refused" or time.monotonic() > end:
                    raise UnreachableError(
                        f"the SuperLink did not answer ({type(error).__name__}): all that was done is kept",
                        where=doing,
                        remedy="see the service's log; when the SuperLink is back, resume the study",
                    ) from error
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def wire_fault(error: Exception) -> str:
    """``away`` or ``refused`` for an error of the way to the SuperLink; empty for any other error."""
    if not isinstance(error, ConnectionError | TimeoutError):
        if type(error).__module__.partition(".")[0] not in WIRE_LIBRARIES:
            return ""
        status = getattr(getattr(error, "response", None), "status_code", 503)
        if status < 500 and status != 429:
            return "refused"
    return "away"


def pauses(link: SiteLink) -> Iterator[float]:
    """Lengths of the pauses between two looks, from the shortest on."""
    pause = link.poll_s
    while True:
        yield pause
        pause = min(1.5 * pause, link.longest_poll_s)


def _answer(message: Message, *, node: int, seconds: float) -> Answer:
    if message.has_error():
        # Flower's text may quote a stranger; only the fact is kept.
        code = CODES.get(message.error.code, CRASHED)
        return Answer(node=node, reply=None, code=code, nbytes=0, seconds=seconds)
    try:
        envelope = from_records(message.content)
        return Answer(
            node=node, reply=reply_from_envelope(envelope), code="", nbytes=envelope.nbytes, seconds=seconds
        )
    except ReplyRefusedError as error:
        return Answer(node=node, reply=None, code=error.code, nbytes=0, seconds=seconds)
