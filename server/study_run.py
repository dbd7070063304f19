"""The whole study: phases in order, rounds in each, from the first model to the last (rows 11 to 13).

Comes in: a study, a link to the sites, a run folder. Goes out: checkpoints and the history that the report
is made of. It resumes from the newest whole checkpoint and the replies that are stored. It does not print,
plot or track.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.durable import on_disk
from cardionets_core.errors import CardioNetsError, QuorumNotMetError, StorageFailedError
from cardionets_core.exchange.messages import Order
from server.aggregation import strategy_of
from server.best_rounds import value_of
from server.checkpoint import Checkpoint
from server.checkpoints import CheckpointStore, folder_name
from server.collect import Collector
from server.enrolment import Enrolment
from server.head_trust import head_trust
from server.measure import Measurer
from server.members import Members
from server.next_model import first_model, layouts_of
from server.page.writer import PageWriter
from server.pause import PauseRequest
from server.phase_order import tasks_of
from server.progress import Event, Progress, silent
from server.reply_journal import ReplyJournal
from server.round_run import FinishedRound, RoundRun
from server.rounds import SiteLink, Waiting
from server.status import StatusBoard
from server.time_left import time_left
from server.untrained import refuse_untrained


class StudyRun:
    """Runs one study in one folder.

    Args:
        study: what to run.
        link: the way to the sites.
        folder: holds ``checkpoints``, ``rounds``, ``status.json`` and ``journal.jsonl``; an earlier run
            of the same study is resumed.
        progress: called for every event.
        initial: folder of the weights that the study names as ``initial``.
        minimum_free_bytes: the study pauses before a round where the disk has less.

    Raises:
        ConfigError: the study names a task, strategy or preset that does not exist, or a wrong option.
        StorageFailedError: the folder cannot be written.
    """

    def __init__(
        self,
        study: Study,
        *,
        link: SiteLink,
        folder: Path,
        progress: Progress = silent,
        initial: Path | None = None,
        minimum_free_bytes: int = 0,
    ) -> None:
        self.study = study
        self.members = Members()
        self._tasks = tasks_of(study)
        strategy = strategy_of(study, self._tasks)
        self.checkpoints = CheckpointStore(folder / "checkpoints", study_digest=study.digest)
        self._folder = folder
        self._progress = progress
        self._initial = initial
        self._minimum_free_bytes = minimum_free_bytes
        self._place = (0, 0)
        trust = head_trust(folder)
        self._journal = ReplyJournal(folder, study_digest=study.digest, trust=trust)
        self._unsigned = trust.fault
        self._pause = PauseRequest(folder)
        self.status = StatusBoard(folder, study, members=self.members, journal=self._journal)
        link.on_wait = self._waits
        link.heads = lambda node: self._journal.heads.of_order(self.members.site(node))
        self._journal.heads.warn = self._warn_of_journal
        self.page = PageWriter(study, folder, warn=self._warn_of_page)
        self._enrolment = Enrolment(
            study,
            link=link,
            members=self.members,
            tasks=self._tasks,
            journal=self._journal,
            tell=self._tell,
        )
        collector = Collector(study, link=link, members=self.members, journal=self._journal, tell=self._tell)
        self._rounds = RoundRun(
            study,
            tasks=self._tasks,
            folder=folder,
            enrolment=self._enrolment,
            collector=collector,
            measurer=Measurer(study, collector=collector, members=self.members),
            members=self.members,
            strategy=strategy,
            pause=self._pause.check,
        )

    def run(self) -> Checkpoint:
        """Run what is left of the study.

        Returns:
            The last checkpoint.

        Raises:
            QuorumNotMetError: too few sites answered; finished rounds are kept, and the study can go on.
            StudyPausedError: the coordinator asked for it.
            StorageFailedError: a disk is full, read-only or failing.
            UnreachableError: the SuperLink did not answer.
            CheckpointError: the folder holds another study.
        """
        checkpoint: Checkpoint | None = None
        try:
            checkpoint = self._newest()
            if self._unsigned:
                self._tell(0, 0, "warning", text=f"heads of the journal go unsigned: {self._unsigned}")
            for index, phase in enumerate(self.study.phases):
                done = checkpoint.round if index == checkpoint.phase else 0
                if index < checkpoint.phase or done >= phase.rounds:
                    continue
                refuse_untrained(self.study, self._tasks[index], phase=index, checkpoint=checkpoint)
                for number in range(done + 1, phase.rounds + 1):
                    self._pause.check()
                    self._check_space()
                    self.status.running(checkpoint)
                    finished = self._rounds.run(index, number, checkpoint)
                    checkpoint = self._close(index, number, finished, checkpoint=checkpoint)
            check_history(self.study, checkpoint.history)
        except CardioNetsError as error:
            place = (checkpoint.phase, checkpoint.round) if checkpoint else (0, 0)
            self._tell(*place, "paused", code=error.code, text=error.what)
            self.status.ended(checkpoint, error)
            raise
        finally:
            self._enrolment.close()
        return checkpoint

    def _newest(self) -> Checkpoint:
        """The checkpoint to go on from: the newest whole one, or that of the first model."""
        with on_disk(self._folder, keeps="the checkpoints are whole"):
            (self._folder / "work").mkdir(parents=True, exist_ok=True)
            checkpoint = self.checkpoints.latest()
            for name in self.checkpoints.torn:
                text = f"the checkpoint {name} is torn and was passed over: its round is done again"
                self._journal.noted("checkpoint-torn", {"checkpoint": name})
                self._tell(int(name[:2]), int(name[3:]), "warning", text=text)
            if checkpoint is not None:
                self._forget_closed(checkpoint)
                return checkpoint
            files, layouts = first_model(
                self.study, self._tasks, work=self._folder / "work", initial=self._initial
            )
        return self.checkpoints.write(
            phase=0, round_number=0, layouts=layouts, files=files, history=[], previous=None
        )

    def _forget_closed(self, checkpoint: Checkpoint) -> None:
        """Remove arrays of rounds whose checkpoint is safe; a server that was killed may have left them."""
        for folder in (self._folder / "rounds").glob("[0-9]*"):
            if folder.name <= folder_name(checkpoint.phase, checkpoint.round):
                for path in folder.glob("*/*/*.f32"):
                    path.unlink()
                for path in folder.glob("*/*/sums"):
                    shutil.rmtree(path)

    def _close(
        self, index: int, number: int, finished: FinishedRound, *, checkpoint: Checkpoint
    ) -> Checkpoint:
        """Write the checkpoint of a finished round and tell of it."""
        entry = finished.history[-1]
        self._place = (index, number)
        written = self.checkpoints.write(
            phase=index,
            round_number=number,
            layouts=layouts_of(checkpoint, finished.files),
            files=finished.files,
            history=finished.history,
            previous=checkpoint,
        )
        with on_disk(self._folder, keeps="the checkpoints are whole"):
            finished.folder.forget_arrays()
        kept = self.study.checkpoints
        self.checkpoints.prune(
            keep=written,
            rounds=[phase.rounds for phase in self.study.phases],
            keep_last=kept.keep_last,
            keep_best=kept.keep_best,
        )
        self.status.running(written)
        left = time_left(self.study, finished.history)
        self._tell(
            index,
            number,
            "round",
            text=_summary(finished.history),
            left_s=left.seconds,
            untimed=left.untimed,
            attempt=entry["attempt"],
        )
        self.page.round(written, self.status.content(), round_s=entry["seconds"])
        return written

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < self._minimum_free_bytes:
            raise StorageFailedError(
                f"{free} bytes are free, a round is begun with {self._minimum_free_bytes} or more",
                where=str(self._folder),
                remedy="free space, or lower minimum_free_bytes; then resume",
            )

    def _waits(self, waiting: Waiting | None) -> None:
        self.status.waiting(waiting)
        if waiting is not None:
            self._pause.check(in_round=waiting.reason != "sites")

    def _warn_of_journal(self, order: Order, text: str) -> None:
        self._tell(order.name.phase, order.name.round, "warning", text=text)

    def _warn_of_page(self, text: str) -> None:
        self._tell(*self._place, "warning", text=text)

    def _tell(self, index: int, number: int, kind: str, **facts: Any) -> None:
        phase = self.study.phases[index]
        counts: dict[str, Any] = {
            "phase": index + 1,
            "phases": len(self.study.phases),
            "round": number,
            "rounds": phase.rounds,
        }
        event = Event(kind=kind, task=phase.title, **counts, **facts)
        self.status.event(event)
        self._progress(event)


def check_history(study: Study, history: Sequence[Mapping[str, Any]]) -> None:
    """A study is complete only if every round of it was trained on as many sites as it asks for.

    Raises:
        QuorumNotMetError: names the first round that was not, or is absent.
    """
    found = {(entry["phase"], entry["round"]): entry for entry in history}
    for index, phase in enumerate(study.phases):
        for number in range(1, phase.rounds + 1):
            rows = found.get((index, number), {}).get("sites", [])
            count = sum(row["status"] in ("trained", "measured") for row in rows)
            if count < study.sites.minimum:
                raise QuorumNotMetError(
                    f"{count} site(s) stand behind a round, the study asks for {study.sites.minimum}",
                    where=f"phase {index + 1} ({phase.task}), round {number}",
                    remedy="the model is not the one that the study asks for: run it in a new folder",
                )


def _summary(history: Sequence[Mapping[str, Any]]) -> str:
    entry = history[-1]
    done = sum(row["status"] in ("trained", "measured") for row in entry["sites"])
    text = f"{done} of {len(entry['sites'])} sites"
    # The metrics of a round may come with the replies of the next one.
    before = history[-2] if len(history) > 1 and history[-2]["phase"] == entry["phase"] else None
    for told, of in ((entry, ""), (before, " before this round")):
        value = None if told is None else value_of(told)
        if value is not None:
            return f"{text} · held-out {entry['primary']}{of} {value:.4f}"
    return text
