"""The whole study: phases in order, rounds in each, from the first model to the last (rows 11 to 13).

Comes in: a study, a link to the sites, a run folder. Goes out: checkpoints and the history that the report
is made of. It resumes from the newest checkpoint in the folder. It does not print, plot or track.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import FrozenModuleMissingError, QuorumNotMetError, ReplyRefusedError
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.tasks import ClosedFormTask, Task, make_task
from server.checkpoints import Checkpoint, CheckpointStore
from server.expected_sums import ExpectedSums
from server.measure import Measured, measure
from server.members import Members
from server.next_model import combine_replies, digest_of, first_model
from server.orders import order_bytes, round_orders
from server.progress import Event, Progress, silent
from server.reply_checks import check_reply, check_sender, check_sums
from server.round_store import RoundStore
from server.rounds import Answer, SiteLink
from strategies import Strategy, make_strategy


class StudyRun:
    """Runs one study in one folder.

    Args:
        study: what to run.
        link: the way to the sites.
        folder: holds ``checkpoints`` and ``rounds``; an earlier run of the same study is resumed.
        progress: called for every event.

    Raises:
        ConfigError: the study names a task, strategy or preset that does not exist, or a wrong option.
    """

    def __init__(self, study: Study, *, link: SiteLink, folder: Path, progress: Progress = silent) -> None:
        self.study = study
        self.members = Members()
        self.checkpoints = CheckpointStore(folder / "checkpoints", study_digest=study.digest)
        self._link = link
        self._folder = folder
        self._work = folder / "work"
        self._progress = progress
        self._tasks: list[Task] = [make_task(phase.task, phase.options) for phase in study.phases]
        self._strategy: Strategy = make_strategy(study.aggregation.strategy, dict(study.aggregation.options))
        self._sums = ExpectedSums(study.preset)
        self._deadline_s = study.sites.deadline_s
        self._seconds: list[float] = []

    def run(self) -> Checkpoint:
        """Run what is left of the study.

        Returns:
            The last checkpoint.

        Raises:
            QuorumNotMetError: too few sites answered; finished rounds are kept, and the study can go on.
            CheckpointError: the folder holds another study.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        checkpoint = self.checkpoints.latest() or self._first_checkpoint()
        ends: set[str] = set()
        for index, phase in enumerate(self.study.phases):
            ends.add(f"{index:02d}-{phase.rounds:05d}")
            done = checkpoint.round if index == checkpoint.phase else 0
            if index < checkpoint.phase or done >= phase.rounds:
                continue
            serving = self._census(index, checkpoint)
            for number in range(done + 1, phase.rounds + 1):
                checkpoint = self._round(index, number, serving, checkpoint)
                self.checkpoints.prune(keep=checkpoint, phase_ends=ends)
        return checkpoint

    def _first_checkpoint(self) -> Checkpoint:
        files, layouts = first_model(self.study, self._tasks, work=self._work)
        return self.checkpoints.write(
            phase=0, round_number=0, layouts=layouts, files=files, history=[], previous=None
        )

    def _census(self, index: int, checkpoint: Checkpoint) -> list[int]:
        """Ask every connected site whether it can serve a phase; returns those that can, in site order."""
        task = self._tasks[index]
        order = Order(
            kind="census",
            name=RoundName(study_digest=self.study.digest, phase=index, round=0, attempt=1),
            study_json=self.study.to_json(),
            frozen={module: checkpoint.digests[module] for module in task.reads},
        )
        nodes = self._link.nodes(minimum=self.study.sites.minimum, deadline_s=self._deadline_s)
        serving: list[int] = []
        for answer in self._link.ask(dict.fromkeys(nodes, order), deadline_s=self._deadline_s):
            site, code = self.members.enrol(answer, order, task=task.name)
            if not code:
                serving.append(answer.node)
            self._tell(index, 0, "census", site=site, text=f"sits out: {code}" if code else "takes part")
        if len(serving) < self.study.sites.minimum:
            raise self._quorum(index, 0, len(serving))
        return sorted(serving, key=self.members.site)

    def _round(self, index: int, number: int, serving: list[int], checkpoint: Checkpoint) -> Checkpoint:
        task, start = self._tasks[index], time.monotonic()
        for attempt in range(1, self.study.sites.attempts + 1):
            name = RoundName(study_digest=self.study.digest, phase=index, round=number, attempt=attempt)
            store = RoundStore(self._folder / "rounds" / f"{index:02d}-{number:05d}-{attempt}")
            entry = self._train(name, task, serving, checkpoint, store)
            trained = len(store.sites())
            if trained >= self.study.sites.minimum:
                break
        else:
            raise self._quorum(index, number, trained)
        files = {module: checkpoint.path(module) for module in checkpoint.digests}
        files.update(
            combine_replies(task, store, strategy=self._strategy, checkpoint=checkpoint, work=self._work)
        )
        self._evaluate(entry, name, task, serving, checkpoint, files)
        entry["seconds"] = round(time.monotonic() - start, 3)
        self._seconds.append(entry["seconds"])
        entry["model_digest"] = digest_of(checkpoint, files)
        written = self.checkpoints.write(
            phase=index,
            round_number=number,
            layouts=checkpoint.layouts,
            files=files,
            history=[*checkpoint.history, entry],
            previous=checkpoint,
        )
        store.forget_arrays()
        self._tell(
            index, number, "round", text=_summary(entry, len(serving)), left_s=self._left_s(index, number)
        )
        return written

    def _train(
        self, name: RoundName, task: Task, serving: list[int], checkpoint: Checkpoint, store: RoundStore
    ) -> dict[str, Any]:
        """Send a round's orders and store every good reply; returns the round's entry of the history."""
        orders = round_orders(
            "train",
            name,
            study_json=self.study.to_json(),
            task=task,
            checkpoint=checkpoint,
            holds={node: self.members.holds(node) for node in serving},
        )
        rows, received = [], 0
        for answer in self._link.ask(orders, deadline_s=self._deadline_s):
            row = self._accept(answer, orders[answer.node], task, checkpoint, store)
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
            "phase": name.phase,
            "task": task.name,
            "primary": task.primary,
            "round": name.round,
            "attempt": name.attempt,
            "bytes_sent": order_bytes(orders),
            "bytes_received": received,
            "sites": sorted(rows, key=lambda row: row["site"]),
        }

    def _accept(
        self, answer: Answer, order: Order, task: Task, checkpoint: Checkpoint, store: RoundStore
    ) -> dict[str, Any]:
        """Judge and store one reply; returns the site's row."""
        site, holds = self.members.site(answer.node), self.members.holds(answer.node)
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
                trains = () if isinstance(task, ClosedFormTask) else task.trains
                layouts = {module: checkpoint.layouts[module] for module in trains}
                check_reply(reply, order=order, site=site, layouts=layouts, bounds=self.study.reply_bounds)
                check_sums(reply, site=site, expected=self._sums.of_training(task))
                store.accept(reply)
                row.update(status="trained", samples=dict(reply.samples), **reply.values)
                holds |= set(order.frozen.values())
        except ReplyRefusedError as error:
            row.update(code=error.code, reason=error.what)
        if row["code"] == FrozenModuleMissingError.code:
            holds.clear()
        return row

    def _evaluate(
        self,
        entry: dict[str, Any],
        name: RoundName,
        task: Task,
        serving: list[int],
        checkpoint: Checkpoint,
        files: Mapping[str, Path],
    ) -> None:
        """Measure on validation patients, and after a phase's last round on test patients."""
        last = name.round == self.study.phases[name.phase].rounds
        splits: list[Literal["validation", "test"]] = []
        if last or name.round % self.study.evaluation.every_rounds == 0:
            splits.append("validation")
        if last:
            splits.append("test")
        for split in splits:
            orders = round_orders(
                "evaluate",
                name,
                study_json=self.study.to_json(),
                task=task,
                checkpoint=checkpoint,
                holds={node: self.members.holds(node) for node in serving},
                files=files,
                split=split,
            )
            entry["bytes_sent"] += order_bytes(orders)
            found: Measured = measure(
                self._link,
                orders,
                members=self.members,
                task=task,
                expected=self._sums.of_metrics(task),
                deadline_s=self._deadline_s,
            )
            if split == "test":
                entry["test"] = {"pooled": found.pooled, "sites": found.rows()}
                continue
            entry["pooled"] = found.pooled
            for row in entry["sites"]:
                if row["site"] in found.by_site:
                    row["metrics"] = found.by_site[row["site"]]
                else:
                    row["measure_code"] = found.codes.get(row["site"], "")

    def _left_s(self, index: int, number: int) -> float:
        rounds = sum(phase.rounds for phase in self.study.phases[index + 1 :])
        rounds += self.study.phases[index].rounds - number
        return rounds * float(np.mean(self._seconds[-10:]))

    def _tell(self, index: int, number: int, kind: str, **facts: Any) -> None:
        phase = self.study.phases[index]
        counts: dict[str, Any] = {
            "phase": index + 1,
            "phases": len(self.study.phases),
            "round": number,
            "rounds": phase.rounds,
        }
        self._progress(Event(kind=kind, task=phase.task, **counts, **facts))

    def _quorum(self, index: int, number: int, count: int) -> QuorumNotMetError:
        minimum = self.study.sites.minimum
        self._tell(index, number, "paused", text=f"{count} site(s) served, {minimum} needed")
        return QuorumNotMetError(
            f"{count} site(s) served, the study needs {minimum}",
            where=f"phase {index + 1} ({self.study.phases[index].task}), round {number}",
            remedy="see each site's code above; mend it, then run again: finished rounds are kept",
        )


def _summary(entry: dict[str, Any], serving: int) -> str:
    trained = sum(row["status"] == "trained" for row in entry["sites"])
    text = f"{trained} of {serving} sites"
    value = entry.get("pooled", {}).get(entry["primary"])
    return text if value is None else f"{text} · held-out {entry['primary']} {value:.4f}"
