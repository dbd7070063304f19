"""CardioNets' exchange without a study: real orders, link, checks, round store, strategy and checkpoints.

Runs inside Flower's ServerApp process. A round is one trip: the order carries the model, the reply the
trained module and the sums of its measurement.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from cardionets_core.config.study import ReplyBounds
from cardionets_core.exchange.messages import RoundName
from cardionets_core.exchange.tensors import layout_of, pack
from server.checkpoints import CheckpointStore
from server.link.transfer import move_bytes_sparingly
from server.next_model import combine_replies, digest_of, layouts_of
from server.orders import round_orders
from server.question import Question
from server.reply_checks import check_reply, check_sums, measured_of
from server.round_store import RoundStore
from server.rounds import SiteLink
from simulation.benchmarks.exchange.synthetic import forget_peak, mark, memory, tensors
from strategies import make_strategy

MODULE = "model"
STUDY = "0" * 64
SUMS = {"n": (2,), "loss": (2,)}
DEADLINE_S = 1800.0

app = ServerApp()


class TimedGrid:
    """Flower's grid; tells how long pushing and pulling take.

    Args:
        grid: Flower's.
        tell: called with what and its facts.
    """

    def __init__(self, grid: Grid, tell: Any) -> None:
        self._grid, self._tell = grid, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Timed."""
        start = time.monotonic()
        found = list(self._grid.push_messages(messages))
        self._tell("pushed", seconds=time.monotonic() - start)
        return found

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Timed, where there is anything."""
        start = time.monotonic()
        found = list(self._grid.pull_messages(message_ids))
        if found:
            self._tell("pulled", seconds=time.monotonic() - start)
        return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config
    rounds = int(config["rounds"])
    marks, sites, folder = Path(str(config["marks"])), int(config["sites"]), Path(str(config["out"]))

    def tell(what: str, **facts: Any) -> None:
        mark(marks, what, **facts)

    move_bytes_sparingly()
    forget_peak()
    mark(marks, "begin", **memory())
    work = folder / "work"
    work.mkdir(parents=True)
    model = tensors(int(config["model-bytes"]), int(config["arrays"]))
    layout = layout_of(model)
    pack(model).tofile(work / "first.f32")
    del model
    store = CheckpointStore(folder / "checkpoints", study_digest=STUDY)
    checkpoint = store.write(
        phase=0, round_number=0, layouts={MODULE: layout}, files={MODULE: work / "first.f32"}, history=[],
        previous=None,
    )  # fmt: skip
    link, strategy = SiteLink(TimedGrid(grid, tell)), make_strategy("fedavg", {})  # type: ignore[arg-type]
    task: Any = SimpleNamespace(trains=(MODULE,), reads=())
    while len(names := link.nodes()) < sites:
        time.sleep(0.5)
    forget_peak()
    mark(marks, "round", round=0, **memory())
    for number in range(1, rounds + 1):
        start = time.monotonic()
        name = RoundName(study_digest=STUDY, phase=0, round=number, attempt=1)
        orders = round_orders(
            "train", name, study_json="{}", task=task, checkpoint=checkpoint,
            holds={node: set() for node in names}, measure=True,
        )  # fmt: skip
        tell("orders", seconds=time.monotonic() - start)
        replies = RoundStore(folder / "rounds" / f"{number:05d}")
        question = Question(link, ttl_s=DEADLINE_S)
        if lost := question.send(orders):
            raise RuntimeError(f"not reached: {[names[answer.node] for answer, _ in lost]}")
        del orders
        for answer, order in question.answers(until=time.monotonic() + DEADLINE_S):
            if answer.reply is None or answer.reply.code:
                raise RuntimeError(f"{names[answer.node]}: {answer.code} {answer.reply}")
            start = time.monotonic()
            site = names[answer.node]
            trained, measured = measured_of(answer.reply)
            check_reply(
                trained, order=order, site=site, layouts={MODULE: layout},
                bounds=ReplyBounds(maximum_update_norm=1e9), current=checkpoint.stretches,
            )  # fmt: skip
            check_sums(trained, site=site, expected={})
            check_sums(measured, site=site, expected=SUMS)
            tell("checked", seconds=time.monotonic() - start)
            start = time.monotonic()
            replies.accept(answer.reply, nbytes=answer.nbytes, seconds=answer.seconds)
            tell("stored", seconds=time.monotonic() - start)
            del answer, trained, measured
        start = time.monotonic()
        files = combine_replies(task, replies, strategy=strategy, checkpoint=checkpoint, work=work)
        tell("combined", seconds=time.monotonic() - start)
        start = time.monotonic()
        entry = {"round": number, "model_digest": digest_of(checkpoint, files)}
        checkpoint = store.write(
            phase=0, round_number=number, layouts=layouts_of(checkpoint, files), files=files,
            history=[*checkpoint.history, entry], previous=checkpoint,
        )  # fmt: skip
        replies.forget_arrays()
        store.prune(keep=checkpoint, rounds=[rounds], keep_last=1, keep_best=False)
        tell("kept", seconds=time.monotonic() - start)
        mark(marks, "round", round=number, **memory())
    mark(marks, "end", **memory())
