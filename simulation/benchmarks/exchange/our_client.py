"""CardioNets' exchange without a study: a site that checks its order, trains nothing and passes the gate."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from cardionets_core.config.site import Policy
from cardionets_core.exchange.messages import MEASURED, PackedModule, Reply, reply_from_envelope
from cardionets_core.exchange.tensors import unpack
from client.app import read_order, reply_message
from client.gate import release
from client.permitted import Permitted
from client.replies import ReplyStore
from simulation.benchmarks.exchange.synthetic import mark

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer an order: the same module back, two sums and a loss."""
    marks, start = Path(str(context.run_config["marks"])), time.monotonic()
    order = read_order(message)
    (name,) = order.modules
    module = order.modules[name]
    held = unpack(module.layout, module.values)
    if not all(np.isfinite(tensor).all() for tensor in held.values()):
        raise ValueError("the order holds values that are not finite")
    values = module.values
    if context.run_config["reply"] == "changed":
        values = values + np.float32((int(context.node_config["site"]) + 1) * 1e-6)
    reply = Reply(
        site=f"site-{context.node_config['site']}",
        name=order.name,
        modules={name: PackedModule(layout=module.layout, values=values)},
        samples={name: 100},
        sums={MEASURED + "n": np.array([60.0, 40.0]), MEASURED + "loss": np.array([30.0, 20.0])},
        values={"loss": 1.0},
    )
    policy = Policy(phases=(), minimum_cell=10, minimum_patients=10, maximum_reply_bytes=1 << 40)
    folders = SimpleNamespace(state=Path(str(context.node_config["state"])))
    config: Any = SimpleNamespace(site=reply.site, policy=policy, folders=folders)
    sums = {name: value.shape for name, value in reply.sums.items()}
    allowed = Permitted(layouts={name: module.layout}, sums=sums, values=frozenset({"loss"}))
    replies = ReplyStore(folders.state / "replies", maximum_bytes=1 << 40)
    if replies.find(order) is not None:
        raise ValueError("a round that was never asked for has a reply")
    released = release(reply, order=order, config=config, patients=100, permitted=allowed, measured=100)
    replies.keep(order, reply_from_envelope(released), patients=100, measured=100)
    answer = reply_message(released, message)
    mark(marks, "answered", seconds=time.monotonic() - start)
    return answer
