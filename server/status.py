"""``status.json``: where a study stands, for whoever looks from outside while it runs.

Comes in: events, what is waited for, checkpoints. Goes out: one file, replaced whole, at every change of
state and otherwise twice a second at most, and for a twentieth of the time at most. The study never reads it
back.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cardionets_core.config.study import Study
from cardionets_core.durable import write_json
from cardionets_core.errors import CardioNetsError
from server.best_rounds import best_rounds, value_of
from server.checkpoint import Checkpoint
from server.members import Members
from server.progress import Event
from server.reply_journal import ReplyJournal
from server.rounds import Waiting

SCHEMA_VERSION = 1
STATUS = "status.json"
SHORTEST_S = 0.5
REST = 20.0
"""After a write, so many times as long passes before the next: each reply asks for one, of all sites."""

State = Literal["waiting", "running", "paused", "completed"]


class StatusBoard:
    """The status of one run folder.

    Args:
        folder: the run folder.
        study: the study.
        members: names and facts of the sites.
        journal: counts refusals.
    """

    def __init__(self, folder: Path, study: Study, *, members: Members, journal: ReplyJournal) -> None:
        self._path = folder / STATUS
        self._study = study
        self._members = members
        self._journal = journal
        self._rests_until = -math.inf
        self._stood: tuple[int, int] | None = None
        now = time.time()
        self._sites: dict[str, dict[str, Any]] = {}
        self._content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "state": "waiting",
            "study": study.name,
            "study_digest": study.digest,
            "phase": 0,
            "phases": len(study.phases),
            "task": study.phases[0].title,
            "round": 0,
            "rounds": study.phases[0].rounds,
            "attempt": 0,
            "started_s": now,
            "since_s": now,
            "updated_s": now,
            "waiting_for": None,
            "primary": None,
            "left_s": None,
            "left_untimed": 0,
            "warnings": [],
            "failure": None,
            "model_digest": None,
            "best": {},
        }

    def event(self, event: Event) -> None:
        """Something happened."""
        known = self._content["round"] if event.phase == self._content["phase"] else 0
        moved = self._move(phase=event.phase, round=event.round or known)
        self._content |= {"phases": event.phases, "task": event.task, "rounds": event.rounds}
        if event.attempt:
            self._content["attempt"] = event.attempt
        if event.left_s is not None:
            self._content |= {"left_s": round(event.left_s, 1), "left_untimed": event.untimed}
        if event.kind == "warning":
            self._content["warnings"] = [*self._content["warnings"], event.text][-20:]
        if event.site:
            site = self._sites.setdefault(event.site, {"last_phase": None})
            # The last round that counted follows from the checkpoint: one that is open may be repeated.
            site |= {"code": event.code, "at_s": time.time()}
        self._write(at_once=moved or event.kind in ("round", "warning"))

    def waiting(self, waiting: Waiting | None) -> None:
        """The study waits for sites, or no longer does."""
        if waiting is None:
            self._content["waiting_for"] = None
            return
        first = self._content["waiting_for"] is None
        self._content["waiting_for"] = {
            "reason": waiting.reason,
            "until_s": round(waiting.until, 3),
            "minimum": self._study.sites.minimum,
            "sites": [
                {"site": self._members.site(node), "node": str(node), "since_s": round(since, 3)}
                for node, since in sorted(waiting.since.items())
            ],
        }
        moved = self._move(state="waiting" if waiting.reason == "sites" else "running")
        self._write(at_once=first or moved)

    def running(self, checkpoint: Checkpoint) -> None:
        """The study stands at a checkpoint; told of the same one again, it begins the next round."""
        self._move(state="running")
        self._stand_at(checkpoint)
        place = (checkpoint.phase, checkpoint.round)
        if self._stood in (None, place):
            self._begin_after(*place)
        self._stood = place
        self._write(at_once=True)

    def ended(self, checkpoint: Checkpoint | None, error: CardioNetsError | None = None) -> None:
        """The study is complete, or paused by an error."""
        self._content["waiting_for"] = None
        self._move(state="paused" if error else "completed")
        if checkpoint is not None:
            self._stand_at(checkpoint)
        if error is None:
            self._content |= {"left_s": 0.0, "left_untimed": 0}
        else:
            self._content["failure"] = {
                "code": error.code,
                "exit_code": error.exit_code,
                "what": error.what,
                "where": error.where,
                "remedy": error.remedy,
                "at_s": time.time(),
            }
        self._write(at_once=True)

    def _move(self, **changes: Any) -> bool:
        """Take over new values; returns whether any is new, and then notes since when it holds."""
        moved = any(self._content[key] != value for key, value in changes.items())
        self._content |= changes
        if moved:
            self._content["since_s"] = time.time()
        return moved

    def _begin_after(self, index: int, number: int) -> None:
        """Before any site of a phase has answered, what is said and waited for is that phase's already."""
        if number >= self._study.phases[index].rounds:
            index, number = index + 1, 0
        if index < len(self._study.phases) and self._content["phase"] != index + 1:
            phase = self._study.phases[index]
            self._move(phase=index + 1, task=phase.title, round=number, rounds=phase.rounds)

    def _stand_at(self, checkpoint: Checkpoint) -> None:
        history = checkpoint.history
        self._content["model_digest"] = checkpoint.model_digest
        self._content["best"] = {str(phase): found for phase, found in best_rounds(history).items()}
        self._content["primary"] = _primary(history)
        if history and not self._content["phase"]:  # resumed: no round has said yet where the study is
            phase = self._study.phases[history[-1]["phase"]]
            self._content |= {"phase": history[-1]["phase"] + 1, "task": phase.task}
            self._content |= {"round": history[-1]["round"], "rounds": phase.rounds}
        for entry in history:
            for row in entry["sites"]:
                site = self._sites.setdefault(row["site"], {"code": "", "last_phase": None})
                if row["status"] == "trained":
                    site |= {"last_phase": entry["phase"] + 1, "last_round": entry["round"]}

    def _write(self, *, at_once: bool) -> None:
        begun = time.monotonic()
        if not at_once and begun < self._rests_until:
            return
        self._content["updated_s"] = time.time()
        content = self.content()
        # A disk that cannot take the status cannot take a checkpoint either: that error pauses the study.
        with contextlib.suppress(OSError):
            write_json(self._path, content, wait=False)
        self._rests_until = begun + max(SHORTEST_S, REST * (time.monotonic() - begun))

    def content(self) -> dict[str, Any]:
        """What the file holds once it is written."""
        names = sorted({*self._sites, *self._members.facts})
        return {**self._content, "sites": [self._site(name) for name in names]}

    def _site(self, name: str) -> dict[str, Any]:
        facts: Mapping[str, Any] = self._members.facts.get(name, {})
        seen = self._sites.get(name, {})
        node = self._members.node(name)
        return {
            "site": name,
            "node": None if node is None else str(node),
            "role": facts.get("role", "member"),
            "code": seen.get("code", ""),
            "at_s": seen.get("at_s"),
            "last_phase": seen.get("last_phase"),
            "last_round": seen.get("last_round"),
            "phases": facts.get("phases", {}),
            "patients": facts.get("patients"),
            "recordings": facts.get("recordings"),
            "versions": facts.get("versions"),
            "refused_replies": self._journal.refusals[name],
        }


def _primary(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The primary metric of the phase that the last finished round belongs to, round by round."""
    if not history:
        return None
    last = history[-1]
    return {
        "phase": last["phase"] + 1,
        "name": last["primary"],
        "higher_is_better": last["higher_is_better"],
        "values": [
            {"round": entry["round"], "value": value_of(entry)}
            for entry in history
            if entry["phase"] == last["phase"]
        ],
    }
