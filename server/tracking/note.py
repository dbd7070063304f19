"""What a store holds of a study, noted in the run folder: ``tracked.json``.

Comes in: ids that the store gave, and counts of what it took. Goes out: the same after a crash. It is written
before something is sent (``asked``) and after, so a reader knows what the store surely holds, and the one
thing that it may hold. One folder may be sent to several stores; each has its own part.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cardionets_core.durable import write_json
from cardionets_core.errors import CheckpointError
from cardionets_core.plain_json import read_json

SCHEMA_VERSION = 1
TRACKED = "tracked.json"
LOCK = "tracking.lock"
PHASE = ("run", "first", "whole", "ended")


@dataclass(slots=True)
class PhaseNote:
    """Of one phase.

    Attributes:
        run: id of its run; empty before it has one.
        first: rounds whose numbers at their end were sent.
        whole: rounds of which all was sent.
        ended: whether its run was ended.
    """

    run: str = ""
    first: int = 0
    whole: int = 0
    ended: bool = False


@dataclass(slots=True)
class StoreNote:
    """Of one store.

    Attributes:
        key: a name of this folder's runs in the store, by which they are found again.
        experiment: id of the experiment.
        run: id of the study's run.
        begun: parameters and the study's document were sent.
        phases: in the study's order.
        asked: what was sent last and not yet confirmed; empty where all was.
        asked_ms: the time that its points carry.
        final: what the study came to was sent.
        files: artefact to the SHA-256 that was sent.
        model: name and version in the registry; empty before that.
        finished: all of a completed study was sent.
        missing: what is still to be sent, in words.
        reason: why, in one line; empty where nothing failed.
        updated_s: when this part changed.
    """

    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    experiment: str = ""
    run: str = ""
    begun: bool = False
    phases: list[PhaseNote] = field(default_factory=list)
    asked: str = ""
    asked_ms: int = 0
    final: bool = False
    files: dict[str, str] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    missing: list[str] = field(default_factory=list)
    reason: str = ""
    updated_s: float = 0.0
    save: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def phase(self, index: int) -> PhaseNote:
        """Of a phase, from 0."""
        while len(self.phases) <= index:
            self.phases.append(PhaseNote())
        return self.phases[index]


def open_note(folder: Path, *, label: str) -> StoreNote:
    """What a store is known to hold of a run folder; ``save`` of it writes ``tracked.json``.

    Args:
        folder: the run folder.
        label: the store's address, or its file's name where it lies in the folder.

    Raises:
        CheckpointError: ``tracked.json`` is none of ours.
    """
    note = StoreNote()
    if found := _stores(folder).get(label):
        note = _store_note(found)

    def save() -> None:
        note.updated_s = round(time.time(), 3)
        stores = {**_stores(folder), label: asdict(note)}
        for part in stores.values():
            part.pop("save")
        write_json(folder / TRACKED, {"schema_version": SCHEMA_VERSION, "stores": stores})

    note.save = save
    return note


def _stores(folder: Path) -> dict[str, Any]:
    """Every store's part of the file, each of the kind that it must be."""
    path = folder / TRACKED
    try:
        content = read_json(path)
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError("another version")
        return {label: asdict(_store_note(part)) for label, part in content["stores"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the note of what was sent to MLflow cannot be read",
            where=str(path),
            remedy="remove it; the study is then sent as new runs, beside those that are there",
        ) from error


def _store_note(content: dict[str, Any]) -> StoreNote:
    """The note of one store.

    Raises:
        ValueError, TypeError, AttributeError: it is none.
    """
    fresh = StoreNote()
    known = {name: value for name, value in content.items() if name not in ("phases", "save")}
    phases = [PhaseNote(**each) for each in content.get("phases", [])]
    note = StoreNote(**known, phases=phases)
    pairs = [(getattr(note, name), getattr(fresh, name)) for name in known]
    pairs += [(getattr(each, name), getattr(PhaseNote(), name)) for each in phases for name in PHASE]
    texts = [*note.missing, *note.files.values(), *note.model.values()]
    # A whole number is written without its point.
    fits = all(
        type(value) is type(kind) or (type(kind), type(value)) == (float, int) for value, kind in pairs
    )
    if not fits or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a note of ours")
    return note
