"""What the files of a run folder say, read for the page; nothing here is trusted to be whole.

Comes in: a run folder, and the workspace around it where there is one. Goes out: the study, its status, the
history of its rounds, what the journal tells of replies, and when sites were online. Files that a crash tore,
or that are not there yet, leave their part empty.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.durable import is_disk_fault
from cardionets_core.errors import CardioNetsError, UsageError
from cardionets_core.plain_json import parse_json
from cardionets_core.service.state import is_held, read_json
from server.checkpoint import STATE
from server.link.wanted import RESULT, RUN_LOCK
from server.reply_journal import JOURNAL
from server.status import STATUS

STUDY = "study.json"
DRAWN = "drawn.json"
ENDED = ("completed", "paused", "failed")
TOLD = ("patients", "recordings", "role", "versions")
LONGEST_JOURNAL = 400_000_000
"""Bytes that are read of it; of a longer one the end is not shown."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the journal says of one reply.

    Attributes:
        time_s: Unix time.
        site: whose it was.
        kind: of the order: ``train``, ``evaluate``, ``statistics``, ``census`` or ``secure``.
        phase: index.
        round: from 1.
        code: why it was refused or none came; empty where it was taken.
        reason: in words, where there are any.
        nbytes: of it.
    """

    time_s: float
    site: str
    kind: str
    phase: int
    round: int
    code: str
    reason: str
    nbytes: int


class JournalTail:
    """Replies that a journal tells of; each look reads only what was added since the last one.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.replies: list[Told] = []

    def look(self) -> list[Told]:
        """All replies so far, in their order."""
        try:
            with self._path.open("rb") as handle:
                if os.fstat(handle.fileno()).st_size < self._read:
                    self._read, self.replies = 0, []  # another run's, or mended
                handle.seek(self._read)
                content = handle.read(max(0, LONGEST_JOURNAL - self._read))
        except OSError:
            return self.replies
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if b'"reply-' in line and (told := _told(line)) is not None:
                self.replies.append(told)
        return self.replies


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """All that the page is made of.

    Attributes:
        folder: of the run.
        study: the study.
        status: ``status.json``, or empty.
        state: that of the overview where there is a workspace; else ``waiting``, ``running``, ``paused``,
            ``completed``, or ``stopped`` where nothing of it runs.
        history: one entry a finished round.
        result: ``result.json`` of an ended study, else empty.
        replies: of the journal.
        drawn: ``drawn.json``, or empty.
        online: site to stretches of Unix times in which it was heard; empty where nobody listened.
        admitted: what the coordinator's overview says, by site; empty without a workspace.
        service: how the workspace's service is, or empty.
        workspace_state: what the workspace's service says of the study, or empty; it knows more than the run.
        why: why the service says so, or empty.
    """

    folder: Path
    study: Study
    status: Mapping[str, Any] = field(default_factory=dict)
    state: str = "waiting"
    history: list[dict[str, Any]] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)
    replies: list[Told] = field(default_factory=list)
    drawn: Mapping[str, Any] = field(default_factory=dict)
    online: Mapping[str, list[list[float]]] = field(default_factory=dict)
    admitted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    service: str = ""
    workspace_state: str = ""
    why: str = ""


class RunReader:
    """Reads one run folder again and again; what did not change is not read twice.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = JournalTail(folder / JOURNAL)
        self._kept: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._known: dict[str, Mapping[str, Any]] = {}

    def read(
        self,
        *,
        history: list[dict[str, Any]] | None = None,
        status: Mapping[str, Any] | None = None,
        around: Mapping[str, Any] | None = None,
    ) -> RunFacts:
        """What the folder says now.

        Args:
            history: of whoever runs the study and has it at hand.
            status: likewise.
            around: ``online``, ``admitted``, ``service``, ``workspace_state`` and ``why`` of the workspace.

        Raises:
            UsageError: it holds no study that can be read.
        """
        study = self._study()
        told = self._json(STATUS) if status is None else status
        if told.get("study_digest") != study.digest:
            told = {}
        result = self._json(RESULT)
        if result.get("study_digest") != study.digest:
            result = {}
        rounds = self._history(study.digest) if history is None else history
        told = {**told, "sites": self._sites(told.get("sites"), result.get("sites"))} if told else told
        state = str(told.get("state") or "waiting")
        if state not in ENDED:
            result = {}  # of an earlier end; the study goes on
            if status is None and not self._is_held():
                state = "stopped"
        elif len(result.get("rounds") or []) >= len(rounds):
            rounds = list(result.get("rounds") or [])
        # A service that runs knows what comes next; one word stands here and in `status`.
        state = str((around or {}).get("workspace_state") or state)
        return RunFacts(
            folder=self.folder,
            study=study,
            status=told,
            state=state,
            history=[entry for entry in rounds if isinstance(entry, dict)],
            result=result,
            replies=self._journal.look(),
            drawn=self._json(DRAWN),
            **(around or {}),
        )

    def _sites(self, now: Any, before: Any) -> list[Mapping[str, Any]]:
        """Rows of the sites; a new process has not asked yet, so what a site told an earlier one stands."""
        for row in before or ():
            self._known.setdefault(str(row["site"]), row)
        rows = {str(row["site"]): row for row in now or ()}
        for site, known in self._known.items():
            row = rows.get(site) or {"site": site}
            if not row.get("versions"):
                row = {**row, **{key: known[key] for key in TOLD if known.get(key)}}
            rows[site] = {**row, "phases": {**known.get("phases", {}), **row.get("phases", {})}}
        self._known = {site: row for site, row in rows.items() if row.get("versions")}
        return [rows[site] for site in sorted(rows)]

    def _is_held(self) -> bool:
        try:
            return is_held(self.folder / RUN_LOCK)
        except OSError:
            return False  # a folder that was copied, or that another may not write

    def _study(self) -> Study:
        path = self.folder / STUDY
        try:
            return Study.model_validate(parse_json(path.read_bytes()))
        except (OSError, ValueError, CardioNetsError) as error:
            if is_disk_fault(error):
                raise
            raise UsageError(
                "this folder holds no study that runs or ran",
                where=str(path),
                remedy="give a workspace, or the folder of one run: DIR/runs/NAME-DIGEST",
            ) from error

    def _json(self, name: str) -> dict[str, Any]:
        return self._once(self.folder / name, read_json) or {}

    def _history(self, digest: str) -> list[dict[str, Any]]:
        """That of the newest checkpoint that can be read."""
        for folder in sorted((self.folder / "checkpoints").glob("[0-9][0-9]-*"), reverse=True):
            state = self._once(folder / STATE, read_json)
            if state and state.get("study_digest") == digest and isinstance(state.get("history"), list):
                return list(state["history"])
        return []

    def _once(self, path: Path, read: Any) -> Any:
        try:
            found = path.stat()
        except OSError:
            return None
        stamp = (found.st_mtime_ns, found.st_size)
        if self._kept.get(path, (None,))[0] != stamp:
            if len(self._kept) > 64:
                self._kept.clear()
            self._kept[path] = (stamp, read(path))
        return self._kept[path][1]


def _told(line: bytes) -> Told | None:
    try:
        body = parse_json(line.partition(b" ")[2], finite=False)
        return Told(
            time_s=float(body["time_s"]),
            site=str(body["site"]),
            kind=str(body["kind"]),
            phase=int(body["phase"]),
            round=int(body["round"]),
            code="" if body["event"] == "reply-accepted" else str(body["code"] or "reply-refused"),
            reason=str(body.get("reason", "")),
            nbytes=int(body.get("bytes", 0)),
        )
    except (ValueError, KeyError, TypeError):
        return None
