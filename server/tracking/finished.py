"""Mirrors one finished result that has no run folder to go on from, such as an arm of a sweep.

Comes in: the content of ``result.json``. Goes out: one run with a child a phase in a store. Sends no file and
registers nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.tracking.note import StoreNote
from server.tracking.outbox import STATE, Outbox
from server.tracking.reasons import reason_of
from server.tracking.store import Store, quiet_mlflow


def track_result(
    content: dict[str, Any],
    *,
    store: Path,
    artefacts: Path,
    experiment: str = "",
    tags: dict[str, str] | None = None,
) -> dict[str, str]:
    """Write one parent run for the study and a child a phase.

    Args:
        content: of ``result.json``.
        store: the SQLite file; made if absent.
        artefacts: folder for MLflow's artefacts; made if absent.
        experiment: default the study's name.
        tags: of the parent run, such as the settings of an arm.

    Returns:
        ``status`` is ``written`` with ``store`` and ``run_id``, or ``failed`` with ``reason``; a lost store
        never stops a study.
    """
    note = StoreNote()
    try:
        with quiet_mlflow():
            artefacts.mkdir(parents=True, exist_ok=True)
            opened = Store(
                address=f"sqlite:///{store.resolve()}",
                experiment=experiment or content["study"]["name"],
                artefacts=artefacts.resolve().as_uri(),
            )
            outbox = Outbox(opened, note, study=content["study"], digest=content["study_digest"])
            outbox.rounds(content["rounds"])
            outbox.final(content)
            outbox.finish()
            if tags:
                opened.tags(note.run, {name: text for name, text in tags.items() if name != STATE})
    except Exception as error:  # tracking is a mirror: whatever fails in it, the study stands
        return {"status": "failed", "reason": reason_of(error)}
    return {"status": "written", "store": store.name, "run_id": note.run}
