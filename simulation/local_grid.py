"""An in-process Grid that runs real ClientApps: whole rounds without Ray and without a network.

For tests, benchmarks and quick runs. A client runs when its reply is pulled, so one reply is in memory at a
time. This is the one file that uses names of Flower that are not public (written for flwr 1.41; a test says
so when that changes).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

FLWR_MINOR = "1.41"
NODE_UNAVAILABLE = 5
CRASHED = 2


class LocalGrid(Grid):
    """A grid of virtual nodes in this process.

    Args:
        apps: one ClientApp a node.
        node_configs: what each node's context carries.
        run_config: what every context's run config carries.
        shuffle: order in which replies come; None keeps the order of sending.
        lost: called with each message; True loses it, as if the node had gone.
        tamper: may replace a reply's content, as a hostile site would.
        names: under which the nodes are registered, where they are; simulation knows none.
        silent: called with each message whenever its reply is looked for; while True, there is none yet.
    """

    def __init__(
        self,
        apps: Sequence[ClientApp],
        *,
        node_configs: Sequence[dict[str, Any]] | None = None,
        run_config: dict[str, Any] | None = None,
        shuffle: random.Random | None = None,
        lost: Callable[[Message], bool] = lambda message: False,
        tamper: Callable[[int, RecordDict], RecordDict] = lambda node, content: content,
        names: Sequence[str] = (),
        silent: Callable[[Message], bool] = lambda message: False,
    ) -> None:
        self._run_config = dict(run_config or {})
        self._names: dict[int, str] = {}
        self._gone: set[int] = set()
        self._silent = silent
        self._apps: dict[int, ClientApp] = {}
        self._contexts: dict[int, Context] = {}
        configs = node_configs or [{"partition-id": i, "num-partitions": len(apps)} for i in range(len(apps))]
        for index, (app, config) in enumerate(zip(apps, configs, strict=True)):
            self.join(app, config, name=names[index] if names else "")
        self._shuffle = shuffle
        self._lost = lost
        self._tamper = tamper
        self._waiting: dict[str, Message] = {}
        self._turn: list[str] = []
        self._run: Any = None
        # Flower refuses to build a Message outside a task.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1

    def join(self, app: ClientApp, config: dict[str, Any], *, name: str = "") -> int:
        """Connect one more node; returns its number."""
        node = 1000 + len(self._apps)
        self._apps[node] = app
        self._names[node] = name
        self._contexts[node] = Context(
            run_id=1,
            node_id=node,
            node_config=dict(config),
            state=RecordDict(),
            run_config=dict(self._run_config),
        )
        return node

    def leave(self, node: int) -> None:
        """Disconnect a node; its messages end as errors."""
        self._gone.add(node)

    def come_back(self, node: int) -> None:
        """Connect a node that left, under its number."""
        self._gone.discard(node)

    def set_run(self, run: Any) -> None:
        """Part of Flower's contract; nothing here needs it."""
        self._run = run

    @property
    def run(self) -> Any:
        """The run that was set."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Build a message to a node."""
        return Message(
            content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl, group_id=group_id
        )

    def get_node_ids(self) -> Iterable[int]:
        """The virtual nodes."""
        return [node for node in self._apps if node not in self._gone]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The virtual nodes with the names of their registration."""
        return [NodeInfo(node_id=node, name=self._names[node]) for node in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; each gets a number."""
        numbers = []
        for message in messages:
            number = f"m{len(self._waiting)}-{random.getrandbits(64):x}"
            message.metadata.__dict__["_message_id"] = number
            message.metadata.__dict__["_run_id"] = 1
            message.metadata.__dict__["_src_node_id"] = 1
            self._waiting[number] = message
            numbers.append(number)
        self._turn = list(self._waiting)
        if self._shuffle:
            self._shuffle.shuffle(self._turn)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run a client and give its reply, if it is its turn."""
        wanted = set(message_ids)
        for number in list(self._turn):
            if self._silent(self._waiting[number]):
                # It keeps its place, and holds nobody up.
                continue
            if number not in wanted:
                break
            self._turn.remove(number)
            return [self._answer(self._waiting.pop(number))]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push all, then pull all."""
        waiting = list(self.push_messages(messages))
        replies: list[Message] = []
        while waiting:
            for number in list(waiting):
                got = list(self.pull_messages([number]))
                if got:
                    waiting.remove(number)
                    replies += got
        return replies

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node in self._gone or self._lost(message):
            return Message(Error(NODE_UNAVAILABLE, "node unavailable"), reply_to=message)
        try:
            reply = self._apps[node](message, self._contexts[node])
        except Exception as error:  # as Flower does with a crashing app
            return Message(Error(CRASHED, repr(error)), reply_to=message)
        return Message(self._tamper(node, reply.content), reply_to=message)
