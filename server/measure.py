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

PERSONAL = "personal/"


@dataclass(kw_only=True)
class Measured:
    """What the sites measured.

    Attributes:
        by_site: site to its metrics.
        pooled: metrics of all members' patients together, from added sums; empty if none could answer.
        external: site that never trains to its metrics; they are not part of ``pooled``.
        personal: site to the metrics of its personal model, and ``pooled``; empty where the study has none.
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


def measure(
    link: SiteLink,
    orders: Mapping[int, Order],
    *,
    members: Members,
    task: Task,
    expected: Mapping[str, tuple[int, ...]],
    deadline_s: float,
    personal: bool = False,
) -> Measured:
    """Ask the sites to measure a model; ``expected`` names the sums and shapes that the task makes.

    With ``personal`` the sites measure their personal models too: the same sums under ``personal/``.

    A site whose sums are wrong, or that refuses, is named with its code; the others count.
    """
    sums: dict[str, dict[str, np.ndarray]] = {}
    own: dict[str, dict[str, np.ndarray]] = {}
    if personal:
        expected = {**expected, **{PERSONAL + name: shape for name, shape in expected.items()}}
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
                    made, mine = _parts(answer.reply.sums)
                    found = task.metrics(made)
                    if members.is_external(answer.node):
                        measured.external[site] = found
                    else:
                        sums[site] = made
                        measured.by_site[site] = found
                        if mine:
                            own[site] = mine
                            measured.personal[site] = task.metrics(mine)
            except ReplyRefusedError as error:
                code = error.code
        if code:
            measured.codes[site] = code
    if sums:
        measured.pooled = task.metrics(add_sums(sums))
    if own:
        measured.personal["pooled"] = task.metrics(add_sums(own))
    return measured


def _parts(sums: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The sums of the model that was sent, and those of the site's own."""
    whole = {name: value for name, value in sums.items() if not name.startswith(PERSONAL)}
    mine = {name.removeprefix(PERSONAL): v for name, v in sums.items() if name.startswith(PERSONAL)}
    return whole, mine
