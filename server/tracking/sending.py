"""Sends a run folder to its store: what is missing, now (the work of ``beside`` and of ``track``).

Comes in: a run folder. Goes out: what the store holds and what it lacks, in words; a fault of the store is
told, never raised. What is sent follows from the newest checkpoint's history and from ``result.json``, so it
may be done at any time, by any process, as often as one likes; a lock lets only one do it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cardionets_core.config.tracking import Tracking
from cardionets_core.plain_json import read_json
from server.tracking.note import StoreNote, open_note
from server.tracking.outbox import Outbox
from server.tracking.reasons import reason_of
from server.tracking.settings import address_of, artefacts_of, label_of
from server.tracking.store import Store, quiet_mlflow

LARGEST_BYTES = 1_000_000_000
RESULT = "result.json"
MODEL = "model"

State = Literal["running", "paused", "completed"]


class Sender:
    """One run folder and its store.

    Args:
        folder: the run folder.
        settings: where it goes.
        beat: called after everything that was sent.

    Raises:
        CheckpointError: the note in the folder is none of ours.
    """

    def __init__(self, folder: Path, settings: Tracking, *, beat: Callable[[], None] = lambda: None) -> None:
        self._folder, self._settings, self._beat = folder, settings, beat
        self.note: StoreNote = open_note(folder, label=label_of(settings))
        self._outbox: Outbox | None = None
        self._store: Store | None = None
        self._told: State | None = None

    def send(self, state: State) -> bool:
        """Send what is missing; returns whether all is there.

        Args:
            state: how the study stands. ``completed`` sends result, plots and model too.
        """
        note, missing = self.note, self._parts(state)
        try:
            with quiet_mlflow():
                if (outbox := self._open()) is None:
                    return False  # no checkpoint yet: the study has not begun
                self._send(outbox, state, missing)
            note.missing, note.reason = [], ""
        except Exception as error:  # tracking is a mirror: whatever fails in it, the study stands
            note.missing, note.reason = list(missing), reason_of(error)
            self._outbox = None
        note.save()
        return not note.missing

    def summary(self) -> dict[str, Any]:
        """What ``result.json`` says of it."""
        return summary_of(self.note, self._settings)

    def _parts(self, state: State) -> list[str]:
        parts = ["rounds"]
        if state == "completed":
            parts += ["result", "artefacts", "model"]
        return parts

    def _open(self) -> Outbox | None:
        if self._outbox is None:
            study, digest, _ = _study(self._folder)
            if not digest:
                return None
            self._store = Store(
                address=address_of(self._folder, self._settings),
                registry=self._settings.registry_uri,
                experiment=self._settings.experiment or study["name"],
                artefacts=artefacts_of(self._folder, self._settings),
            )
            self._outbox = Outbox(self._store, self.note, study=study, digest=digest, beat=self._beat)
            self._told = None
        return self._outbox

    def _send(self, outbox: Outbox, state: State, missing: list[str]) -> None:
        _, _, history = _study(self._folder)
        outbox.begin()
        if self._told != state and state != "completed":
            outbox.state(state)
            self._told = state
        outbox.rounds(history)
        missing.remove("rounds")
        outbox.files(self._folder, running=state == "running")
        if state != "completed":
            return
        content = read_json(self._folder / RESULT, most_bytes=LARGEST_BYTES)
        outbox.final(content)
        missing.remove("result")
        missing.remove("artefacts")
        self._model(outbox, content)
        missing.remove("model")
        outbox.finish(text=card_text(content))

    def _model(self, outbox: Outbox, content: Mapping[str, Any]) -> None:
        folder = self._folder / MODEL
        if not folder.is_dir():
            return
        if not self._settings.register_model:
            outbox.model_files(folder)
            return
        if self.note.model or self._store is None:
            return
        from server.tracking.model import register

        self.note.model = register(
            self._store, run=self.note.run, folder=folder, content=content, card=card_text(content)
        )
        self.note.save()
        self._beat()


def card_text(content: Mapping[str, Any]) -> str:
    """The model's card, as the release writes it."""
    from server.release.card import card_of

    return card_of(content)


def summary_of(note: StoreNote, settings: Tracking) -> dict[str, Any]:
    """JSON-ready: ``status`` is ``written``, or ``behind`` with what is ``missing`` and the ``reason``."""
    found: dict[str, Any] = {"status": "behind" if note.missing else "written", "store": label_of(settings)}
    if note.run:
        found |= {"experiment_id": note.experiment, "run_id": note.run}
    if note.model:
        found["model"] = dict(note.model)
    if note.missing:
        found |= {"missing": list(note.missing), "reason": note.reason}
    return found


def finished_history(folder: Path) -> Sequence[dict[str, Any]]:
    """The rounds that are safe on disk."""
    return _study(folder)[2]


def _study(folder: Path) -> tuple[dict[str, Any], str, Sequence[dict[str, Any]]]:
    """The study, its digest (empty before the first checkpoint) and the history that is safe on disk."""
    study = read_json(folder / "study.json", most_bytes=LARGEST_BYTES)
    for path in sorted((folder / "checkpoints").glob("[0-9]*-[0-9]*/state.json"), reverse=True):
        try:
            state = read_json(path, most_bytes=LARGEST_BYTES, finite=False)
            return study, str(state["study_digest"]), list(state["history"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # pruned between the look and the reading, or torn: the one before it is whole
    result = folder / RESULT
    if result.is_file():
        content = read_json(result, most_bytes=LARGEST_BYTES)
        return study, str(content["study_digest"]), list(content["rounds"])
    return study, "", []
