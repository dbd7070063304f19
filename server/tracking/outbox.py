"""Brings a store up to date with what a study has on disk: what is missing is sent, nothing twice.

Comes in: the history of finished rounds, and at the end the result. Goes out: runs in the store, and the note
of what it holds. The first call that fails ends a try; the next one goes on from the note. Whether the store
took what a failed call carried is found out by asking it, never by sending again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from server.tracking.note import PhaseNote, StoreNote
from server.tracking.parameters import study_parameters, version_tags
from server.tracking.points import (
    PENDING,
    Points,
    final_points,
    measured_points,
    round_points,
)
from server.tracking.store import LARGE_FILE_BYTES, NOTE, Store

STATE = "cardionets.state"
"""Tag of the study's run: ``running``, ``paused`` or ``completed``."""
STUDY = "study.json"
FILES = (STUDY, "result.json", "report.html")
FOLDERS = ("plots",)
PICTURES = frozenset({".png", ".svg", ".pdf", ".html"})

Entry = Mapping[str, Any]


class Outbox:
    """One study and one store.

    Args:
        store: where it goes.
        note: what is known to be there.
        study: the document, as JSON.
        digest: of it.
        beat: called after everything that was sent.
    """

    def __init__(
        self,
        store: Store,
        note: StoreNote,
        *,
        study: Mapping[str, Any],
        digest: str,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._note, self._beat = store, note, beat
        self._study, self._digest = study, digest

    def begin(self) -> None:
        """The study's run, with its parameters, and the run of the first phase."""
        note, digest = self._note, self._digest
        if not note.run:
            note.save()  # the key is on disk before a run has it
            tags = {STATE: "running", "study": self._study["name"], "study_digest": digest}
            note.run = self._store.run(note.key, name=f"{self._study['name']} {digest[:12]}", tags=tags)
            note.experiment = self._store.experiment
            self._done()
        if not note.begun:
            self._store.parameters(note.run, study_parameters(self._study, digest))
            self._store.tags(note.run, version_tags())
            note.begun = True
            self._done()
        self._phase_run(0)

    def state(self, state: str) -> None:
        """Say how the study stands; a study that goes on makes its run RUNNING again."""
        self._store.tags(self._note.run, {STATE: state})
        if state == "running":
            self._store.tags(self._note.run, version_tags())
            if self._note.finished:
                self._store.go_on(self._note.run)
        self._beat()

    def rounds(self, history: Sequence[Entry]) -> None:
        """Send what is missing of finished rounds; a phase's run begins and ends with it."""
        self.begin()
        for index, phase in enumerate(self._study["phases"]):
            entries = [entry for entry in history if entry["phase"] == index]
            if entries:
                self._rounds_of(index, entries)
            note = self._note.phase(index)
            if note.whole < phase["rounds"]:
                return
            if not note.ended:
                self._store.end(note.run)
                note.ended = True
                self._done()
            if index + 1 < len(self._study["phases"]):
                self._phase_run(index + 1)

    def _rounds_of(self, index: int, entries: Sequence[Entry]) -> None:
        run, note = self._phase_run(index), self._note.phase(index)
        for place, entry in enumerate(entries):
            pending = bool(entry.get(PENDING))
            points: Points = {}
            if place >= note.first:
                points |= round_points(entry)
            if place >= note.whole and not pending:
                points |= measured_points(entry)
            if not points:
                continue
            self._points(run, points, step=int(entry["round"]), what=f"phase {index} round {entry['round']}")
            note.first = max(note.first, place + 1)
            note.whole = max(note.whole, note.whole if pending else place + 1)
            self._done()

    def final(self, content: Mapping[str, Any]) -> None:
        """What the study came to, on its own run."""
        if self._note.final:
            return
        run = self._note.run
        values = {"model_digest": str(content["model_digest"]), "sites": str(len(content["sites"]))}
        self._store.parameters(run, values)
        self._points(run, final_points(content), step=0, what="final")
        self._note.final = True
        self._done()

    def files(self, folder: Path, *, running: bool = False) -> None:
        """Send documents and plots that are there and are not in the store as they are now.

        Args:
            folder: the run folder.
            running: of a study that goes on only what does not change from round to round is sent.
        """
        for path in [folder / STUDY] if running else _documents(folder):
            name, digest = path.relative_to(folder).as_posix(), _sha256(path)
            if self._note.files.get(name) != digest:
                under = path.parent.relative_to(folder).as_posix()
                self._store.file(self._note.run, path, under="" if under == "." else under)
                self._note.files[name] = digest
                self._done()

    def model_files(self, folder: Path) -> None:
        """Send the model folder as it is, where it is not registered."""
        for path in sorted(folder.iterdir()):
            name, digest = f"{folder.name}/{path.name}", _sha256(path)
            if path.is_file() and self._note.files.get(name) != digest:
                self._store.file(self._note.run, path, under=folder.name)
                self._note.files[name] = digest
                self._done()

    def finish(self, *, text: str = "") -> None:
        """End the study's run; ``text`` is its description in Markdown."""
        tags = {STATE: "completed"} | ({NOTE: text} if text else {})
        self._store.tags(self._note.run, tags)
        self._store.end(self._note.run)
        self._note.finished = True
        self._done()

    def _phase_run(self, index: int) -> str:
        note: PhaseNote = self._note.phase(index)
        if not note.run:
            task = str(self._study["phases"][index]["task"])
            tags = {"phase": str(index + 1), "task": task}
            note.run = self._store.run(
                f"{self._note.key}/{index}", name=f"{index + 1} {task}", tags=tags, parent=self._note.run
            )
            self._done()
        return note.run

    def _points(self, run: str, points: Points, *, step: int, what: str) -> None:
        """Send points of one step; noted before, and where it was noted already the store is asked first."""
        note = self._note
        in_doubt = note.asked == what
        if not in_doubt:
            note.asked, note.asked_ms = what, int(time.time() * 1000)
            note.save()
        self._store.points(run, points, step=step, at_ms=note.asked_ms, in_doubt=in_doubt)
        self._note.asked = ""

    def _done(self) -> None:
        self._note.save()
        self._beat()


def _documents(folder: Path) -> Iterator[Path]:
    found = [folder / name for name in FILES]
    for name in FOLDERS:
        found += sorted(path for path in (folder / name).rglob("*") if path.suffix in PICTURES)
    yield from (path for path in found if path.is_file() and path.stat().st_size <= LARGE_FILE_BYTES)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
