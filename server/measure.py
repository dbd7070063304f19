"""Measures a model on the sites' held-out patients: metric sums in, per-site and pooled metrics out.

The sums come by orders of their own, or with the replies of the round that trains on the model that is
measured (``evaluation.trips: one``); the metrics are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import ReplyRefusedError
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.exchange.messages import PERSONAL, Order, Reply
from cardionets_core.tasks import GradientTask, MeasureTask, Task
from cardionets_core.tasks.expected_sums import expected_sums
from cardionets_core.training.local_rule import local_rule
from cardionets_core.training.secure_round import TOGETHER
from server.collect import Collector
from server.members import Members
from server.open_round import OpenRound, measured_before
from server.orders import round_orders
from server.reply_checks import check_measured

PENDING = "pending"
"""In an entry of the history: its validation metrics come with the replies of the next round."""

Split = Literal["validation", "test"]


@dataclass(kw_only=True)
class Measured:
    """What the sites measured.

    Attributes:
        by_site: site to its metrics.
        pooled: metrics of all members' patients together, from added sums; empty if none could answer.
        external: site that never trains to its metrics; they are not part of ``pooled``.
        personal: site to the metrics of its own model, and ``pooled``; empty where the study has none.
        codes: site to the code for which it did not measure.
    """

    by_site: dict[str, dict[str, float]] = field(default_factory=dict)
    pooled: dict[str, float] = field(default_factory=dict)
    external: dict[str, dict[str, float]] = field(default_factory=dict)
    personal: dict[str, dict[str, float]] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, object]]:
        """One row a site, sorted by name."""
        names = sorted({*self.by_site, *self.codes})
        return [
            {"site": name, "metrics": self.by_site[name]}
            if name in self.by_site
            else {"site": name, "code": self.codes[name]}
            for name in names
        ]


def splits_of(study: Study, task: Task, *, phase: int, round_number: int) -> list[Split]:
    """Which held-out patients a round measures by orders of its own."""
    last = round_number == study.phases[phase].rounds
    if isinstance(task, MeasureTask):
        return ["test"]
    found: list[Split] = []
    if not study.exact_sums_leave:
        return found
    if is_due(study, phase=phase, round_number=round_number) and not is_pending(
        study, task, phase=phase, round_number=round_number
    ):
        found.append("validation")
    if last:
        found.append("test")
    return found


def is_due(study: Study, *, phase: int, round_number: int) -> bool:
    """Whether the model after a round is measured on the validation patients."""
    last = round_number == study.phases[phase].rounds
    return study.exact_sums_leave and (last or round_number % study.evaluation.every_rounds == 0)


def is_pending(study: Study, task: Task, *, phase: int, round_number: int) -> bool:
    """Whether the validation metrics of a round come with the replies of the next one.

    Not where an average is measured instead of what is trained, nor where not all sites train.
    """
    return (
        study.evaluation.trips == "one"
        and isinstance(task, GradientTask)
        and study.phases[phase].ema_decay is None
        and study.sites.per_round is None
        and 1 <= round_number < study.phases[phase].rounds
        and is_due(study, phase=phase, round_number=round_number)
    )


class Measurer:
    """Asks the sites to measure models.

    Args:
        study: the study.
        collector: asks the questions of a round.
        members: which node is which site.
    """

    def __init__(self, study: Study, *, collector: Collector, members: Members) -> None:
        self._study = study
        self._collector = collector
        self._members = members
        self._sums = expected_sums(study.models)
        self._rule = local_rule(study)

    def measure(
        self, opened: OpenRound, split: Split, nodes: Sequence[int], *, files: Mapping[str, Path]
    ) -> Measured:
        """Ask the sites to measure the model that a round has made.

        A site whose sums are wrong, or that refuses, is named with its code; the others count.

        Args:
            opened: the round.
            split: whose patients.
            nodes: that are asked; an external one for its test patients only.
            files: of the modules that are measured.
        """
        asked = [node for node in nodes if split == "test" or not self._members.is_external(node)]
        expected = self._rule.metric_shapes(opened.task, self._sums.of_metrics(opened.task))

        def orders(missing: list[int], attempt: int) -> dict[int, Order]:
            return round_orders(
                "evaluate",
                replace(opened.name, attempt=attempt),
                study_json=self._study.to_json(),
                task=opened.task,
                checkpoint=opened.checkpoint,
                holds={node: self._members.holds(node) for node in missing},
                files=files,
                split=split,
            )

        def judge(reply: Reply, order: Order, node: int, site: str) -> tuple[Reply, float]:
            check_measured(reply, site=site, expected=expected, task=opened.task)
            if reply.modules:
                raise ReplyRefusedError(f"site {site} sent modules with its metrics", where="reply")
            return reply, 1.0

        def serving(afresh: bool, counted: Collection[str]) -> list[int]:
            return asked

        # A server that takes the round up again must know it before it has met the site.
        external = {self._members.site(node) for node in asked if self._members.is_external(node)}
        known = set(opened.folder.get("external", []))
        if not external <= known:
            opened.folder.note({"external": sorted(known | external)})
        found = self._collector.gather(split, opened, serving, orders=orders, judge=judge, once=True)
        store = opened.folder.store(split)
        codes = {site: str(row["code"]) for site, row in found.failed.items()}
        sums = {site: store.sums(site) for site in store.sites()}
        return _measured(opened.task, sums, codes, external=opened.folder.get("external", []))

    def of_replies(self, opened: OpenRound, entry: Mapping[str, Any]) -> Measured:
        """What the sites measured, before they trained, of the model that a round began with.

        Args:
            opened: the round.
            entry: of the round before, whose model it is; its sites count.
        """
        store = opened.folder.store("train")
        known = {row["site"] for row in entry["sites"]}
        counted = [site for site in store.sites() if site in known or site == TOGETHER]
        codes = {site: str(store.facts(site)["measure_code"]) for site in counted}
        sums = {site: measured_before(store, site) for site, code in codes.items() if not code}
        return _measured(opened.task, sums, {site: code for site, code in codes.items() if code})


def _measured(
    task: Task,
    sums: Mapping[str, dict[str, np.ndarray]],
    codes: dict[str, str],
    *,
    external: Collection[str] = (),
) -> Measured:
    measured = Measured(codes=codes)
    inside: dict[str, dict[str, np.ndarray]] = {}
    own: dict[str, dict[str, np.ndarray]] = {}
    for site, values in sums.items():
        sent = {name: value for name, value in values.items() if not name.startswith(PERSONAL)}
        if site in external:
            # It never trains: what it holds in the place of its own model is the one that was sent.
            measured.external[site] = task.metrics(sent)
            continue
        inside[site] = sent
        if site == TOGETHER:
            # A secure sum: nobody but the sites knows what each of them measured.
            continue
        measured.by_site[site] = task.metrics(sent)
        if len(sent) < len(values):
            mine = {name: value for name, value in values.items() if name.startswith(PERSONAL)}
            own[site] = {name.removeprefix(PERSONAL): value for name, value in mine.items()}
            measured.personal[site] = task.metrics(own[site])
    if inside:
        measured.pooled = task.metrics(add_sums(inside))
    if own:
        measured.personal["pooled"] = task.metrics(add_sums(own))
    return measured


def fill_validation(entry: dict[str, Any], found: Measured) -> None:
    """Write what was measured on validation patients into a round's entry of the history."""
    entry.pop(PENDING, None)
    entry["pooled"] = found.pooled
    if found.personal:
        entry["personal"] = found.personal
    for row in entry["sites"]:
        if row["site"] in found.by_site:
            row["metrics"] = found.by_site[row["site"]]
        else:
            row["measure_code"] = found.codes.get(row["site"], "")
