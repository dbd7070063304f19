"""Measures a model on the sites' held-out patients: metric sums in, per-site and pooled metrics out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cardionets_core.errors import ReplyRefusedError
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.exchange.messages import Order
from cardionets_core.tasks import Task
from server.members import Members
from server.reply_checks import check_sender, check_sums
from server.rounds import SiteLink


@dataclass(kw_only=True)
class Measured:
    """What the sites measured.

    Attributes:
        by_site: site to its metrics.
        pooled: metrics of all members' patients together, from added sums; empty if none could answer.
        external: site that never trains to its metrics; they are not part of ``pooled``.
        codes: site to the code for which it did not measure.
    """

    by_site: dict[str, dict[str, float]] = field(default_factory=dict)
    pooled: dict[str, float] = field(default_factory=dict)
    external: dict[str, dict[str, float]] = field(default_factory=dict)
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


def measure(
    link: SiteLink,
    orders: Mapping[int, Order],
    *,
    members: Members,
    task: Task,
    expected: Mapping[str, tuple[int, ...]],
    deadline_s: float,
) -> Measured:
    """Ask the sites to measure a model; ``expected`` names the sums and shapes that the task makes.

    A site whose sums are wrong, or that refuses, is named with its code; the others count.
    """
    sums: dict[str, dict[str, np.ndarray]] = {}
    measured = Measured()
    for answer in link.ask(orders, deadline_s=deadline_s):
        site = members.site(answer.node)
        code = answer.code
        if answer.reply is not None:
            try:
                check_sender(answer.reply, order=orders[answer.node], site=site)
                code = answer.reply.code
                if not code:
                    check_sums(answer.reply, site=site, expected=expected)
                    found = task.metrics(answer.reply.sums)
                    if members.is_external(answer.node):
                        measured.external[site] = found
                    else:
                        sums[site] = dict(answer.reply.sums)
                        measured.by_site[site] = found
            except ReplyRefusedError as error:
                code = error.code
        if code:
            measured.codes[site] = code
    if sums:
        measured.pooled = task.metrics(add_sums(sums))
    return measured
