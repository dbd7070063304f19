"""What the sites send in one round: statistics, trained modules, metric sums (rows 10 and 11 of the walk).

Comes in: the round's name, its task, the nodes that serve it. Goes out: the round's entry of the history;
good replies lie in the round's store. A site whose reply is wrong is left out, named and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import FrozenModuleMissingError, ReplyRefusedError
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.tasks import ClosedFormTask, GradientTask, MeasureTask, Task
from cardionets_core.training.local_rule import local_rule
from server.aggregation import taken_marks
from server.checkpoints import Checkpoint
from server.expected_sums import ExpectedSums
from server.measure import Measured, measure
from server.members import Members
from server.orders import order_bytes, round_orders
from server.reply_checks import check_reply, check_sender, check_sums, role_of
from server.round_store import RoundStore
from server.rounds import Answer, SiteLink


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statistics:
    """What the sites shared before the steps of a round.

    Attributes:
        sums: added; None where nobody gave any.
        nodes: that gave them. Only these train: the sums hold for no others.
        left_out: rows of the sites that did not.
        bytes_sent: of the orders.
    """

    sums: dict[str, np.ndarray] | None
    nodes: list[int]
    left_out: list[dict[str, Any]]
    bytes_sent: int


class Collector:
    """Sends the orders of a round and judges what comes back.

    Args:
        study: the study.
        link: the way to the sites.
        members: which node is which site.
        tell: called with phase, round, kind of event and its facts.
    """

    def __init__(self, study: Study, *, link: SiteLink, members: Members, tell: Callable[..., None]) -> None:
        self._study = study
        self._link = link
        self._members = members
        self._tell = tell
        self._sums = ExpectedSums(study.preset)
        self._rule = local_rule(study)
        self._deadline_s = study.sites.deadline_s

    def train(
        self,
        name: RoundName,
        task: Task,
        serving: list[int],
        *,
        checkpoint: Checkpoint,
        store: RoundStore,
    ) -> dict[str, Any]:
        """Send a round's orders and store every good reply; returns the round's entry of the history."""
        rows: list[dict[str, Any]] = []
        received, sent, shared = 0, 0, None
        if isinstance(task, GradientTask) and task.shares:
            given = self._statistics(name, task, serving, checkpoint=checkpoint)
            shared, serving, rows, sent = given.sums, given.nodes, given.left_out, given.bytes_sent
        extras: tuple[str, ...] = ()
        if isinstance(task, GradientTask) and self._rule.extras:
            extras = self._rule.extra_names(task.trains)
            shared = {**(shared or {}), **taken_marks(checkpoint.history, phase=name.phase)}
        orders = round_orders(
            "train",
            name,
            study_json=self._study.to_json(),
            task=task,
            checkpoint=checkpoint,
            holds={node: self._members.holds(node) for node in serving},
            shared=shared,
            extras=extras,
        )
        for answer in self._link.ask(orders, deadline_s=self._deadline_s):
            row = self._accept(answer, orders[answer.node], task, checkpoint=checkpoint, store=store)
            rows.append(row)
            received += answer.nbytes
            text = (
                ""
                if row["status"] == "trained"
                else f"left out: {row['code']} {row.get('reason', '')}".rstrip()
            )
            self._tell(
                name.phase, name.round, row["status"], site=row["site"], loss=row.get("loss"), text=text
            )
        return {
            **round_entry(name, task),
            "bytes_sent": sent + order_bytes(orders),
            "bytes_received": received,
            "sites": sorted(rows, key=lambda row: row["site"]),
        }

    def _statistics(
        self, name: RoundName, task: GradientTask, serving: list[int], *, checkpoint: Checkpoint
    ) -> _Statistics:
        """Ask for the sites' statistics of a round and add them."""
        orders = round_orders(
            "statistics",
            name,
            study_json=self._study.to_json(),
            task=task,
            checkpoint=checkpoint,
            holds={node: self._members.holds(node) for node in serving},
        )
        expected = self._sums.of_statistics(task)
        found: dict[int, dict[str, np.ndarray]] = {}
        rows = []
        for answer in self._link.ask(orders, deadline_s=self._deadline_s):
            site, code, reason = self._members.site(answer.node), answer.code, ""
            if answer.reply is not None:
                code = answer.reply.code
                try:
                    check_sender(answer.reply, order=orders[answer.node], site=site)
                    if not code:
                        check_sums(answer.reply, site=site, expected=expected)
                        found[answer.node] = dict(answer.reply.sums)
                        held = self._members.holds(answer.node)
                        held |= set(orders[answer.node].frozen.values())
                except ReplyRefusedError as error:
                    code, reason = error.code, error.what
            if code:
                rows.append({"site": site, "status": "left-out", "code": code, "reason": reason, "bytes": 0})
                self._tell(name.phase, name.round, "left-out", site=site, text=f"left out: {code} {reason}")
        shared = add_sums({self._members.site(node): sums for node, sums in found.items()}) if found else None
        nodes = [node for node in serving if node in found]
        return _Statistics(sums=shared, nodes=nodes, left_out=rows, bytes_sent=order_bytes(orders))

    def _accept(
        self, answer: Answer, order: Order, task: Task, *, checkpoint: Checkpoint, store: RoundStore
    ) -> dict[str, Any]:
        """Judge and store one reply; returns the site's row."""
        site, holds = self._members.site(answer.node), self._members.holds(answer.node)
        row: dict[str, Any] = {
            "site": site,
            "status": "left-out",
            "code": answer.code,
            "bytes": answer.nbytes,
        }
        reply = answer.reply
        if reply is None:
            return row
        row["code"] = reply.code
        try:
            if reply.code:
                check_sender(reply, order=order, site=site)
            else:
                # A closed-form task sends sums; a module in its reply is one too many.
                role = role_of(reply, task, site=site)
                trains = () if isinstance(task, ClosedFormTask) else role.trains
                layouts = {module: checkpoint.layouts[module] for module in trains}
                check_reply(
                    reply,
                    order=order,
                    site=site,
                    layouts=layouts,
                    bounds=self._study.reply_bounds,
                    rule=self._rule,
                )
                check_sums(reply, site=site, expected=self._sums.of_training(task))
                store.accept(reply, weight=role.weight)
                row.update(status="trained", samples=dict(reply.samples), **reply.values)
                holds |= set(order.frozen.values())
        except ReplyRefusedError as error:
            row.update(code=error.code, reason=error.what)
        if row["code"] == FrozenModuleMissingError.code:
            holds.clear()
        return row

    def evaluate(
        self,
        entry: dict[str, Any],
        name: RoundName,
        task: Task,
        serving: list[int],
        *,
        checkpoint: Checkpoint,
        files: Mapping[str, Path],
    ) -> None:
        """Measure on validation patients, and after a phase's last round on test patients; fills the entry.

        A site that never trains is asked for its test patients only.
        """
        last = name.round == self._study.phases[name.phase].rounds
        splits: list[Literal["validation", "test"]] = []
        if isinstance(task, MeasureTask):
            splits = ["test"]
        elif last or name.round % self._study.evaluation.every_rounds == 0:
            splits.append("validation")
        if last and "test" not in splits:
            splits.append("test")
        for split in splits:
            asked = [node for node in serving if split == "test" or not self._members.is_external(node)]
            orders = round_orders(
                "evaluate",
                name,
                study_json=self._study.to_json(),
                task=task,
                checkpoint=checkpoint,
                holds={node: self._members.holds(node) for node in asked},
                files=files,
                split=split,
            )
            entry["bytes_sent"] += order_bytes(orders)
            found: Measured = measure(
                self._link,
                orders,
                members=self._members,
                task=task,
                expected=self._sums.of_metrics(task),
                deadline_s=self._deadline_s,
                personal=isinstance(task, GradientTask) and bool(self._rule.personal_of(task.trains)),
            )
            if split == "test":
                entry["test"] = {"pooled": found.pooled, "sites": found.rows(), "external": found.external}
                if found.personal:
                    entry["test"]["personal"] = found.personal
                continue
            entry["pooled"] = found.pooled
            if found.personal:
                entry["personal"] = found.personal
            for row in entry["sites"]:
                if row["site"] in found.by_site:
                    row["metrics"] = found.by_site[row["site"]]
                else:
                    row["measure_code"] = found.codes.get(row["site"], "")


def round_entry(name: RoundName, task: Task) -> dict[str, Any]:
    """What every round's entry of the history begins with."""
    return {
        "phase": name.phase,
        "task": task.name,
        "primary": task.primary,
        "higher_is_better": task.higher_is_better,
        "round": name.round,
        "attempt": name.attempt,
    }
