"""Keeps the SuperLink and the study as the coordinator wants them: keys registered, runs begun again.

Two jobs of the service, done every few seconds. ``KeySync`` registers the keys of admitted sites and takes
those of revoked ones out. ``StudyKeeper`` looks whether a study that is wanted still runs; where its run has
died, it submits the study again as a new run, which goes on from our own state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardionets_core.config.sites import SiteRow
from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import write_json
from cardionets_core.errors import CardioNetsError
from cardionets_core.logs.events import Value
from cardionets_core.logs.log import EventLog
from cardionets_core.service.state import is_held, read_json
from server.link.control import Control
from server.link.wanted import (
    NOTHING,
    RUN,
    RUN_LOCK,
    Wanted,
    newer_result,
    read_wanted,
    write_wanted,
)
from server.provision.registry import read_registry

NODES = "nodes.json"
MOST_SUBMISSIONS = 10
"""In a row without a finished round; then the keeper gives up and says so."""
LONGEST_PAUSE_S = 120.0

Tell = Callable[[str], None]


class KeySync:
    """Registers and forgets keys at the SuperLink, as the registry says.

    Args:
        workspace: whose registry counts.
        control: the SuperLink.
        tell: told what was done.
        log: gets the same as events.
    """

    def __init__(
        self, workspace: Workspace, control: Control, tell: Tell, log: EventLog | None = None
    ) -> None:
        self._workspace, self._control, self._tell, self._log = workspace, control, tell, log
        self._path = workspace.state / NODES

    def __call__(self) -> None:
        """Bring the SuperLink in line with the registry."""
        nodes = dict((read_json(self._path) or {}).get("nodes", {}))
        for row in read_registry(self._workspace).rows:
            known = nodes.get(row.fingerprint)
            if row.status == "admitted" and known is None:
                nodes[row.fingerprint] = {"site": row.site, "node_id": self._register(row)}
                self._tell(f"{row.site}: key registered")
                note(self._log, "key-registered", site=row.site)
            elif row.status == "revoked" and known is not None and not known.get("out"):
                if known["node_id"]:
                    self._control.unregister(known["node_id"])
                known["out"] = True
                self._tell(f"{row.site}: key taken out")
                note(self._log, "key-removed", site=row.site)
            else:
                continue
            write_json(self._path, {"schema_version": 1, "nodes": nodes})

    def _register(self, row: SiteRow) -> str:
        key = self._workspace.link / f"{row.site}.pub"
        key.write_text(f"{row.public_key} {row.site}\n", encoding="ascii")
        try:
            return self._control.register(key, name=row.site)
        except CardioNetsError as error:
            # Registered before, and the note of it lost: the door keeps a revoked key out all the same.
            if "already in use" in error.what:
                return ""
            raise

    def forget(self) -> None:
        """After the loss of the SuperLink's database every key is registered again."""
        self._path.unlink(missing_ok=True)


class StudyKeeper:
    """Submits the wanted study again when its run has died.

    Args:
        workspace: whose study it is.
        control: the SuperLink.
        tell: told what was done.
        log: gets the same as events.
    """

    def __init__(
        self, workspace: Workspace, control: Control, tell: Tell, log: EventLog | None = None
    ) -> None:
        self._workspace, self._control, self._tell, self._log = workspace, control, tell, log

    def __call__(self) -> None:
        """Look once, and act if the run has ended."""
        wanted = read_wanted(self._workspace)
        if wanted is None or wanted.wanted != RUN or is_running(wanted.out):
            return  # a ServerApp that works holds the run folder, and ends when it sees that its run is over
        status = self._control.run_status(wanted.run_id) if wanted.run_id else "unknown"
        if status != "unknown" and not status.startswith("finished"):
            return
        result = newer_result(wanted)
        if result is not None:
            self._note(wanted, str(result.get("status")), result)
            return
        self._again(wanted, status)

    def _note(self, wanted: Wanted, outcome: str, result: dict[str, Any]) -> None:
        self._tell(f"study {wanted.study}: {outcome}")
        note(self._log, "study-ended", study=wanted.study_digest, outcome=outcome)
        why = "" if outcome == "completed" else str(result.get("paused", {}).get("what", ""))
        write_wanted(self._workspace, wanted.changed(wanted=NOTHING, outcome=outcome, why=why))

    def _again(self, wanted: Wanted, status: str) -> None:
        rounds = finished_rounds(wanted.out)
        tries = wanted.tries + 1 if rounds == wanted.rounds else 1
        if tries > MOST_SUBMISSIONS:
            why = f"its run died {MOST_SUBMISSIONS} times without finishing a round; see logs"
            self._tell(f"study {wanted.study}: given up, {why}")
            note(self._log, "study-given-up", study=wanted.study_digest)
            write_wanted(self._workspace, wanted.changed(wanted=NOTHING, outcome="failed", why=why))
            return
        pause = min(LONGEST_PAUSE_S, 2.0 ** (tries - 1))
        if time.time() - wanted.submitted_s < pause:
            return
        run_id = submit(self._control, wanted)
        write_wanted(
            self._workspace,
            wanted.changed(run_id=run_id, submitted_s=time.time(), tries=tries, rounds=rounds),
        )
        self._tell(f"study {wanted.study}: run ended ({status}), goes on as run {run_id}")
        note(self._log, "study-resumed", study=wanted.study_digest)


def note(log: EventLog | None, event: str, **fields: Value) -> None:
    """A line in the service's log, where there is one."""
    if log is not None:
        log.write(event, **fields)


def submit(control: Control, wanted: Wanted) -> str:
    """Start the ServerApp of a study; returns Flower's number of the run."""
    return control.submit(
        wanted.app,
        {
            "study": str(wanted.out / "study.json"),
            "out": str(wanted.out),
            "initial": wanted.initial,
            "track": wanted.track,
            "minimum-free-bytes": wanted.minimum_free_bytes,
        },
    )


def is_running(out: Path) -> bool:
    """Whether a ServerApp holds the run folder."""
    return is_held(out / RUN_LOCK)


def finished_rounds(out: Path) -> str:
    """Name of the newest checkpoint; changes with every finished round."""
    names = sorted(path.name for path in (out / "checkpoints").glob("[0-9]*-[0-9]*"))
    return names[-1] if names else ""
