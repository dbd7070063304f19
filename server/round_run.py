"""One round from its orders to the entry and the files of the next checkpoint (rows 10 to 12 of the walk).

Comes in: the checkpoint that the sites start from, and who can serve. Goes out: the history with the round's
entry at its end, and the files of the next model. Writes no checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.durable import on_disk
from cardionets_core.exchange.messages import RoundName
from cardionets_core.tasks import MeasureTask, Task
from server.aggregation import population_of
from server.checkpoint import Checkpoint
from server.collect import Collector
from server.enrolment import Enrolment
from server.measure import PENDING, Measurer, fill_validation, is_pending, splits_of
from server.members import Members
from server.next_model import average_files, combine_replies, digest_of, measured_files, settle
from server.open_round import OpenRound, left_out_row, round_entry
from server.round_folder import RoundFolder
from strategies import RoundFacts, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRound:
    """What a round came to.

    Attributes:
        files: of every module of the next model.
        history: of all finished rounds, this one among them.
        folder: of the round; its arrays may go when the checkpoint is safe.
    """

    files: dict[str, Path]
    history: list[dict[str, Any]]
    folder: RoundFolder


class RoundRun:
    """Runs the rounds of a study, one at a time.

    Args:
        study: the study.
        tasks: of its phases.
        folder: of the run.
        enrolment: who can serve.
        collector: asks the sites to train.
        measurer: asks the sites to measure.
        members: which node is which site.
        strategy: how replies are combined.
        pause: called where an attempt may begin; raises if the study is to pause.
    """

    def __init__(
        self,
        study: Study,
        *,
        tasks: list[Task],
        folder: Path,
        enrolment: Enrolment,
        collector: Collector,
        measurer: Measurer,
        members: Members,
        strategy: Strategy,
        pause: Callable[[], None],
    ) -> None:
        self._study = study
        self._tasks = tasks
        self._rounds = folder / "rounds"
        self._work = folder / "work"
        self._enrolment = enrolment
        self._collector = collector
        self._measurer = measurer
        self._members = members
        self._strategy = strategy
        self._pause = pause

    def run(self, index: int, number: int, checkpoint: Checkpoint) -> FinishedRound:
        """Run one round, taking up what an interrupted try has stored.

        Args:
            index: of the phase.
            number: of the round, from 1.
            checkpoint: the model that the sites start from.

        Raises:
            QuorumNotMetError: too few sites answered; what came is kept.
            StorageFailedError: a disk failed; what came is kept.
        """
        start = time.monotonic()
        nodes = self._enrolment.serving(index, checkpoint)
        name = RoundName(study_digest=self._study.digest, phase=index, round=number, attempt=1)
        folder = RoundFolder(self._rounds, name, start_digest=checkpoint.model_digest)
        before = checkpoint.history[-1] if checkpoint.history else {}
        task = self._tasks[index]
        opened = OpenRound(
            name=name,
            task=task,
            checkpoint=checkpoint,
            folder=folder,
            measure=bool(before.get(PENDING)) and before["phase"] == index,
        )
        files = {module: checkpoint.path(module) for module in checkpoint.digests}
        if isinstance(task, MeasureTask):
            rows = [
                {"site": self._members.site(node), "status": "measured", "code": "", "bytes": 0}
                for node in nodes
            ]
            entry: dict[str, Any] = {**round_entry(name, task), "sites": rows}
        else:
            entry, nodes = self._train(opened, nodes)
            with on_disk(self._work, keeps="all finished rounds and the replies of this one are whole"):
                files = self._next_files(opened, files, entry)
        history = self._filled(opened, entry)
        folder.add({"seconds": time.monotonic() - start})
        start = time.monotonic()
        self._measure(opened, entry, nodes, files=measured_files(task, files))
        if number == self._study.phases[index].rounds and not isinstance(task, MeasureTask):
            files = settle(files)
        entry |= {
            "bytes_sent": folder.get("bytes_sent", 0),
            "bytes_received": folder.get("bytes_received", 0),
            "seconds": round(folder.get("seconds", 0.0) + time.monotonic() - start, 3),
            "model_digest": digest_of(checkpoint, files),
        }
        return FinishedRound(files=files, history=[*history, entry], folder=folder)

    def _train(self, opened: OpenRound, nodes: list[int]) -> tuple[dict[str, Any], list[int]]:
        """The round's entry so far, and the nodes that serve after the last attempt."""
        phase, checkpoint = opened.name.phase, opened.checkpoint
        serving_now = list(nodes)

        def serving(afresh: bool, counted: Collection[str]) -> list[int]:
            nonlocal serving_now
            if afresh:
                self._pause()
                serving_now = self._enrolment.serving(phase, checkpoint, counted=counted)
            return self._enrolment.members_of(serving_now)

        entry = self._collector.train(opened, serving)
        named = {row["site"] for row in entry["sites"]}
        absent = {site: code for site, code in self._enrolment.absent().items() if site not in named}
        entry["sites"] += [left_out_row(site, code) for site, code in absent.items()]
        entry["sites"].sort(key=lambda row: row["site"])
        return entry, serving_now

    def _next_files(
        self, opened: OpenRound, files: dict[str, Path], entry: Mapping[str, Any]
    ) -> dict[str, Path]:
        task, checkpoint = opened.task, opened.checkpoint
        store = opened.folder.store("train")
        # As noted when the round began: a server that takes it up again finds other sites connected.
        names = {*opened.folder.get("draw", []), *self._collector.contributors("train", opened)}
        population = population_of(checkpoint.history, phase=opened.name.phase, names=names)
        files = files | combine_replies(
            task,
            store,
            strategy=self._strategy,
            checkpoint=checkpoint,
            work=self._work,
            facts=RoundFacts(number=opened.name.round, population=population),
        )
        decay = self._study.phases[opened.name.phase].ema_decay
        if decay is None:
            return files
        # An average that was there before goes in and out under its own name.
        steps = float(np.mean([row["steps"] for row in entry["sites"] if row["status"] == "trained"]))
        return files | average_files(
            task, files, checkpoint=checkpoint, decay=decay, steps=steps, work=self._work
        )

    def _filled(self, opened: OpenRound, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The history before this round, with the metrics that came on the way."""
        history = list(opened.checkpoint.history)
        if opened.measure:
            # The checkpoint's own entry stays as it was written.
            before = {**history[-1], "sites": [dict(row) for row in history[-1]["sites"]]}
            found = self._measurer.of_replies(opened, before)
            failed = {row["site"]: row["code"] for row in entry["sites"] if row["status"] == "left-out"}
            found.codes = {**failed, **found.codes}
            fill_validation(before, found)
            history[-1] = before
        return history

    def _measure(
        self, opened: OpenRound, entry: dict[str, Any], nodes: list[int], *, files: Mapping[str, Path]
    ) -> None:
        """Measure the new model by orders of their own, or leave the entry to the next round's replies."""
        phase, number = opened.name.phase, opened.name.round
        if is_pending(self._study, opened.task, phase=phase, round_number=number):
            entry |= {PENDING: True, "pooled": {}}
        for split in splits_of(self._study, opened.task, phase=phase, round_number=number):
            found = self._measurer.measure(opened, split, nodes, files=files)
            if split == "test":
                entry["test"] = {"pooled": found.pooled, "sites": found.rows(), "external": found.external}
                if found.personal:
                    entry["test"]["personal"] = found.personal
            else:
                fill_validation(entry, found)
