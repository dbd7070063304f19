"""What the sites send in one round: statistics and trained modules (rows 10 and 11 of the walk).

Comes in: the round's name, its task, its folder. Goes out: the round's entry of the history; good replies lie
in the round's stores. A site whose reply is wrong is left out, named and counted. What an interrupted try has
stored is taken up: a site is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import QuorumNotMetError, ReplyRefusedError
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.exchange.messages import Order, Reply
from cardionets_core.tasks import ClosedFormTask, GradientTask
from cardionets_core.tasks.expected_sums import expected_sums
from cardionets_core.training.local_rule import local_rule
from cardionets_core.training.secure_round import TOGETHER
from server.aggregation import taken_marks
from server.gather import Gather, Gathered, Judge, MakeOrders, Serving
from server.members import Members
from server.open_round import OpenRound, round_entry, trained_row
from server.orders import order_bytes, round_orders
from server.reply_checks import check_measured, check_reply, check_sums, measured_of, role_of
from server.reply_journal import ReplyJournal
from server.round_folder import MEASURED, Part
from server.rounds import SiteLink
from server.secure_gather import SecureGather
from server.selection import chosen, draw_order
from server.updates import with_tensors


class Collector:
    """Sends the orders of a round and judges what comes back.

    Args:
        study: the study.
        link: the way to the sites.
        members: which node is which site.
        journal: hears of every reply.
        tell: called with phase, round, kind of event and its facts.
    """

    def __init__(
        self,
        study: Study,
        *,
        link: SiteLink,
        members: Members,
        journal: ReplyJournal,
        tell: Callable[..., None],
    ) -> None:
        self._study = study
        self._link = link
        self._members = members
        self._journal = journal
        self._tell = tell
        self._sums = expected_sums(study.models)
        self._rule = local_rule(study)
        self._secure = (
            None
            if study.secure_aggregation is None
            else SecureGather(study, link=link, members=members, journal=journal, tell=self._tell_row)
        )

    def contributors(self, part: Part, asked: OpenRound) -> list[str]:
        """Sites whose answers to a question are stored, each or as a sum."""
        if self._secure is not None:
            return self._secure.contributors(part, asked)
        return asked.folder.store(part).sites()

    def train(self, asked: OpenRound, serving: Serving) -> dict[str, Any]:
        """Send a round's orders and store every good reply; returns the round's entry of the history.

        Args:
            asked: the round.
            serving: gives the member nodes that can serve, in site order.

        Raises:
            QuorumNotMetError: too few good replies came in all attempts; what came is kept.
        """
        folder, task = asked.folder, asked.task
        able = self._drawn(asked, serving)
        rows: dict[str, dict[str, Any]] = {}
        shared = None
        if isinstance(task, GradientTask) and task.shares:
            shared, rows, able = self._statistics(asked, able)
        extras = self._rule.extras_of(task)
        if self._rule.hears_of_taken(task):
            shared = {**(shared or {}), **taken_marks(asked.checkpoint.history, phase=asked.name.phase)}

        def orders(nodes: list[int], attempt: int) -> dict[int, Order]:
            return self._orders(
                "train", asked, nodes, attempt, shared=shared, measure=asked.measure, extras=extras
            )

        def judge(reply: Reply, order: Order, node: int, site: str) -> tuple[Reply, float]:
            return self._judge_training(reply, order, site, asked)

        found = self.gather("train", asked, able, orders=orders, judge=judge)
        store = folder.store("train")
        served = self.contributors("train", asked)
        self._check_quorum(asked, len(served))
        rows |= found.failed
        # The row of a site in a sum tells what is true of all of them together.
        rows |= {
            site: {**trained_row(store, site if self._secure is None else TOGETHER), "site": site}
            for site in served
        }
        return {
            **round_entry(replace(asked.name, attempt=max(1, found.attempt)), task),
            "bytes_sent": folder.get("bytes_sent", 0),
            "bytes_received": folder.get("bytes_received", 0),
            "sites": sorted(rows.values(), key=lambda row: row["site"]),
        }

    def gather(
        self,
        part: Part,
        asked: OpenRound,
        able: Serving,
        *,
        orders: MakeOrders,
        judge: Judge,
        once: bool = False,
    ) -> Gathered:
        """Ask one question of a round, taking up what its store holds.

        Args:
            part: which question.
            asked: the round.
            able: the nodes that may be asked.
            orders: makes their orders.
            judge: of their replies.
            once: whether any number of replies will do, in one attempt.
        """
        folder, name = asked.folder, asked.name
        if self._secure is not None:
            minimum = 0 if once else self._study.sites.minimum
            return self._secure.run(part, asked, able, orders=orders, minimum=minimum)
        store = folder.store(part)
        if store.sites():
            self._journal.kept(phase=name.phase, round_number=name.round, part=part, sites=store.sites())
        attempts_before = int(folder.get(f"attempt_{part}", 0))
        missing = {self._members.site(node) for node in able(False, ())} - set(store.sites())
        if not missing and len(store.sites()) >= (0 if once else self._study.sites.minimum):
            return Gathered(attempt=attempts_before)

        def noted(nodes: list[int], attempt: int) -> dict[int, Order]:
            made = orders(nodes, attempt)
            # On the disk before anything is sent: an attempt's number is never used twice.
            folder.note(
                {
                    f"attempt_{part}": attempt,
                    "bytes_sent": folder.get("bytes_sent", 0) + order_bytes(made),
                }
            )
            return made

        gather = Gather(
            self._link,
            self._members,
            self._journal,
            store=store,
            make_orders=noted,
            judge=judge,
            tell=lambda row: self._tell_row(part, asked, row),
            deadline_s=self._study.sites.deadline_s,
            attempts=1 if once else self._study.sites.attempts,
            minimum=0 if once else self._study.sites.minimum,
        )
        found = gather.run(able, first_attempt=attempts_before + 1)
        folder.add({"bytes_received": found.bytes_received})
        return found

    def _drawn(self, asked: OpenRound, serving: Serving) -> Serving:
        """Restrict the serving nodes to those that were drawn for the round."""
        folder, name = asked.folder, asked.name
        if folder.get("draw", None) is None:
            names = [self._members.site(node) for node in serving(False, ())]
            drawn_names = draw_order(names, seed=self._study.seed, phase=name.phase, round_number=name.round)
            folder.note({"draw": drawn_names})

        def drawn(afresh: bool, counted: Collection[str]) -> list[int]:
            nodes = {self._members.site(node): node for node in serving(afresh, counted)}
            answered = {*self.contributors("train", asked), *self.contributors("statistics", asked)}
            taken = chosen(
                folder.get("draw", []),
                able=set(nodes),
                answered=answered,
                per_round=self._study.sites.per_round,
            )
            return [node for site, node in sorted(nodes.items()) if site in taken]

        return drawn

    def _statistics(
        self, asked: OpenRound, able: Serving
    ) -> tuple[dict[str, np.ndarray] | None, dict[str, dict[str, Any]], Serving]:
        """The sites' added statistics, rows of those that gave none, and who trains with them.

        Only the sites that gave theirs train: the sums hold for no others. Once an order to train has gone
        out with the sums, they stand.
        """
        task, folder = asked.task, asked.folder
        assert isinstance(task, GradientTask)
        expected = self._sums.of_statistics(task)
        given: list[str] | None = folder.get("shared_by", None)
        if given is not None:
            reachable = {
                *map(self._members.site, able(False, ())),
                *self.contributors("train", asked),
            }
            stored = self.contributors("statistics", asked)
            if len(reachable & set(given) & set(stored)) < self._study.sites.minimum or set(given) - set(
                stored
            ):
                # Those who gave their statistics cannot make the round any more: it begins anew.
                folder.forget_replies()
                folder.note({"shared_by": None})
                given = None
        failed: dict[str, dict[str, Any]] = {}
        if given is None:

            def orders(nodes: list[int], attempt: int) -> dict[int, Order]:
                return self._orders("statistics", asked, nodes, attempt)

            def judge(reply: Reply, order: Order, node: int, site: str) -> tuple[Reply, float]:
                check_sums(reply, site=site, expected=expected)
                if reply.modules:
                    raise ReplyRefusedError(f"site {site} sent modules with its statistics", where="reply")
                return reply, 1.0

            failed = self.gather("statistics", asked, able, orders=orders, judge=judge).failed
            given = self.contributors("statistics", asked)
            self._check_quorum(asked, len(given))
            folder.note({"shared_by": given})
        names = set(given)
        store = folder.store("statistics")
        shared = add_sums({site: store.sums(site) for site in store.sites()}) if given else None

        def sharing(afresh: bool, counted: Collection[str]) -> list[int]:
            return [node for node in able(afresh, counted) if self._members.site(node) in names]

        return shared, failed, sharing

    def _check_quorum(self, asked: OpenRound, count: int) -> None:
        minimum = self._study.sites.minimum
        if count < minimum:
            raise QuorumNotMetError(
                f"{count} site(s) served, the study needs {minimum}",
                where=f"phase {asked.name.phase + 1} ({asked.task.name}), round {asked.name.round}",
                remedy="see each site's code; mend it and resume: finished rounds and good replies are kept",
            )

    def _orders(
        self, kind: Any, asked: OpenRound, nodes: list[int], attempt: int, **more: Any
    ) -> dict[int, Order]:
        return round_orders(
            kind,
            replace(asked.name, attempt=attempt),
            study_json=self._study.to_json(),
            task=asked.task,
            checkpoint=asked.checkpoint,
            holds={node: self._members.holds(node) for node in nodes},
            **more,
        )

    def _judge_training(self, reply: Reply, order: Order, site: str, asked: OpenRound) -> tuple[Reply, float]:
        """Raise if a reply may not touch the model; else what of it is stored, and its weight."""
        task, checkpoint = asked.task, asked.checkpoint
        # A closed-form task sends sums; a module in its reply is one too many.
        role = role_of(reply, task, site=site)
        trains = () if isinstance(task, ClosedFormTask) else role.trains
        layouts = {module: checkpoint.layouts[module] for module in trains}

        # From here on a module is what it was trained to, however it came.
        reply = with_tensors(reply, site=site, layouts=layouts, rule=self._rule, current=checkpoint.values)
        rest, measured = measured_of(reply) if order.measure else (reply, None)
        check_reply(
            rest,
            order=order,
            site=site,
            layouts=layouts,
            bounds=self._study.reply_bounds,
            current=checkpoint.stretches,
            rule=self._rule,
        )
        check_sums(rest, site=site, expected=self._sums.of_training(task), task=task)
        if measured is None or reply.measure_code:
            return rest, role.weight
        try:
            expected = self._rule.metric_shapes(task, self._sums.of_metrics(task))
            check_measured(measured, site=site, expected=expected, task=task)
        except ReplyRefusedError as error:
            # What it trained is sound; what it measured is not, and does not count.
            self._journal.refused(order, site=site, node=0, code=error.code, reason=error.what)
            return replace(rest, measure_code=error.code), role.weight
        return reply, role.weight

    def _tell_row(self, part: Part, asked: OpenRound, row: dict[str, Any]) -> None:
        name, facts = asked.name, {"site": row["site"], "code": row["code"]}
        facts["attempt"] = asked.folder.get(f"attempt_{part}", 0)
        if row["status"] != "stored":
            what = f"not measured on {part} patients" if part in MEASURED else "left out"
            text = f"{what}: {row['code']} {row.get('reason', '')}".rstrip()
            self._tell(name.phase, name.round, "left-out", text=text, **facts)
        elif part == "train":
            loss = asked.folder.store("train").facts(row["site"])["values"].get("loss")
            self._tell(name.phase, name.round, "trained", loss=loss, **facts)
