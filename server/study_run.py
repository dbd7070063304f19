"""The whole study: phases in order, rounds in each, from the first model to the last (rows 11 to 13).

Comes in: a study, a link to the sites, a run folder. Goes out: checkpoints and the history that the report
is made of. It resumes from the newest checkpoint in the folder. It does not print, plot or track.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import QuorumNotMetError
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.tasks import MeasureTask
from server.aggregation import strategy_of
from server.checkpoints import Checkpoint, CheckpointStore
from server.collect import Collector, round_entry
from server.members import Members
from server.next_model import (
    average_files,
    combine_replies,
    digest_of,
    first_model,
    layouts_of,
    measured_files,
    settle,
)
from server.phase_order import tasks_of
from server.progress import Event, Progress, silent
from server.round_store import RoundStore
from server.rounds import SiteLink
from strategies import RoundFacts, Strategy


class StudyRun:
    """Runs one study in one folder.

    Args:
        study: what to run.
        link: the way to the sites.
        folder: holds ``checkpoints`` and ``rounds``; an earlier run of the same study is resumed.
        progress: called for every event.
        initial: folder of the weights that the study names as ``initial``.

    Raises:
        ConfigError: the study names a task, strategy or preset that does not exist, or a wrong option.
    """

    def __init__(
        self,
        study: Study,
        *,
        link: SiteLink,
        folder: Path,
        progress: Progress = silent,
        initial: Path | None = None,
    ) -> None:
        self.study = study
        self.members = Members()
        self.checkpoints = CheckpointStore(folder / "checkpoints", study_digest=study.digest)
        self._link = link
        self._folder = folder
        self._work = folder / "work"
        self._progress = progress
        self._initial = initial
        self._tasks = tasks_of(study)
        self._strategy: Strategy = strategy_of(study, self._tasks)
        self._deadline_s = study.sites.deadline_s
        self._seconds: list[float] = []
        self._collector = Collector(study, link=link, members=self.members, tell=self._tell)

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
        files, layouts = first_model(self.study, self._tasks, work=self._work, initial=self._initial)
        return self.checkpoints.write(
            phase=0, round_number=0, layouts=layouts, files=files, history=[], previous=None
        )

    def _census(self, index: int, checkpoint: Checkpoint) -> list[int]:
        """Ask every connected site whether it can serve a phase; returns those that can, in site order.

        External sites are among them: they are asked to measure, never to train.
        """
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
            part = "measures only" if self.members.is_external(answer.node) else "takes part"
            self._tell(index, 0, "census", site=site, text=f"sits out: {code}" if code else part)
        members = len(self._members_of(serving))
        if members < self.study.sites.minimum:
            raise self._quorum(index, 0, members)
        return sorted(serving, key=self.members.site)

    def _members_of(self, nodes: list[int]) -> list[int]:
        return [node for node in nodes if not self.members.is_external(node)]

    def _round(self, index: int, number: int, serving: list[int], checkpoint: Checkpoint) -> Checkpoint:
        task, start = self._tasks[index], time.monotonic()
        members = self._members_of(serving)
        if isinstance(task, MeasureTask):
            return self._measure_only(index, number, serving, checkpoint)
        for attempt in range(1, self.study.sites.attempts + 1):
            name = RoundName(study_digest=self.study.digest, phase=index, round=number, attempt=attempt)
            store = RoundStore(self._folder / "rounds" / f"{index:02d}-{number:05d}-{attempt}")
            entry = self._collector.train(name, task, members, checkpoint=checkpoint, store=store)
            trained = len(store.sites())
            if trained >= self.study.sites.minimum:
                break
        else:
            raise self._quorum(index, number, trained)
        files = {module: checkpoint.path(module) for module in checkpoint.digests}
        files.update(
            combine_replies(
                task,
                store,
                strategy=self._strategy,
                checkpoint=checkpoint,
                work=self._work,
                facts=RoundFacts(number=number, population=len(members)),
            )
        )
        decay = self.study.phases[index].ema_decay
        if decay is not None:
            # An average that was there before goes in and out under its own name.
            steps = float(np.mean([row["steps"] for row in entry["sites"] if row["status"] == "trained"]))
            files |= average_files(
                task, files, checkpoint=checkpoint, decay=decay, steps=steps, work=self._work
            )
        self._collector.evaluate(
            entry, name, task, serving, checkpoint=checkpoint, files=measured_files(task, files)
        )
        if number == self.study.phases[index].rounds:
            files = settle(files)
        written = self._close(entry, start, files=files, checkpoint=checkpoint)
        store.forget_arrays()
        return written

    def _measure_only(
        self, index: int, number: int, serving: list[int], checkpoint: Checkpoint
    ) -> Checkpoint:
        """A round of a task that trains nothing: the sites measure, the model stays as it is."""
        task, start = self._tasks[index], time.monotonic()
        name = RoundName(study_digest=self.study.digest, phase=index, round=number, attempt=1)
        rows = [
            {"site": self.members.site(node), "status": "measured", "code": "", "bytes": 0}
            for node in serving
        ]
        entry: dict[str, Any] = {
            **round_entry(name, task),
            "bytes_received": 0,
            "bytes_sent": 0,
            "sites": rows,
        }
        files = {module: checkpoint.path(module) for module in checkpoint.digests}
        self._collector.evaluate(entry, name, task, serving, checkpoint=checkpoint, files=files)
        return self._close(entry, start, files=files, checkpoint=checkpoint)

    def _close(
        self, entry: dict[str, Any], start: float, *, files: dict[str, Path], checkpoint: Checkpoint
    ) -> Checkpoint:
        """Write the checkpoint of a finished round and tell of it."""
        index, number = entry["phase"], entry["round"]
        entry["seconds"] = round(time.monotonic() - start, 3)
        self._seconds.append(entry["seconds"])
        entry["model_digest"] = digest_of(checkpoint, files)
        written = self.checkpoints.write(
            phase=index,
            round_number=number,
            layouts=layouts_of(checkpoint, files),
            files=files,
            history=[*checkpoint.history, entry],
            previous=checkpoint,
        )
        self._tell(index, number, "round", text=_summary(entry), left_s=self._left_s(index, number))
        return written

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


def _summary(entry: dict[str, Any]) -> str:
    done = sum(row["status"] in ("trained", "measured") for row in entry["sites"])
    text = f"{done} of {len(entry['sites'])} sites"
    # A task without rounds of training is measured once, on the test patients.
    measured = entry.get("pooled") or entry.get("test", {}).get("pooled", {})
    value = measured.get(entry["primary"])
    return text if value is None else f"{text} · held-out {entry['primary']} {value:.4f}"
