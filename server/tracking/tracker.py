"""The study's side of its mirror: starts the process that sends, tells it of rounds, waits a little.

Comes in: a run folder and events. Goes out: words on a pipe that is never waited for. No call here takes
longer than a write to a pipe, but ``end``, whose wait has a limit. Imports no MLflow.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cardionets_core.config.tracking import Tracking
from cardionets_core.errors import CardioNetsError
from server.tracking.note import StoreNote, open_note
from server.tracking.sending import summary_of
from server.tracking.settings import label_of, read_settings

END_REMOTE_S = 30.0
"""How long the end of a study waits for a tracking server, all in all."""
END_LOST_S = 10.0
"""The same for a store that did not answer when it was asked last."""
END_LOCAL_S = 300.0
"""The same for a store that is a file: nothing but a large model takes time there."""
GONE_S = 2.0
REMEDY = "send it later: cardionets-server track FOLDER, which is the run folder or its workspace"


class Tracker:
    """Mirrors one study while it runs.

    Args:
        folder: the run folder, with ``study.json`` in it.
        settings: where to; default what ``tracking.json`` in the folder says.

    Raises:
        ConfigError: ``tracking.json`` is none of ours.
        CheckpointError: ``tracked.json`` is none of ours.
    """

    def __init__(self, folder: Path, settings: Tracking | None = None) -> None:
        self._folder = folder.resolve()
        self._settings = read_settings(folder) if settings is None else settings
        open_note(folder, label=label_of(self._settings))  # a torn note is told before anything begins
        self._reason = ""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-P", "-m", "server.tracking.beside", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # The code of this process, wherever it was loaded from.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def round(self) -> str:
        """A round has finished; returns what there is to warn of, once a cause."""
        self._say("round")
        note = self._note()
        reason = note.reason if note else ""
        new, self._reason = reason != self._reason, reason
        if not new:
            return ""
        label = label_of(self._settings)
        if not reason:
            return f"tracking: {label} answers again; what it missed is sent"
        return f"tracking: {label} did not take it ({reason}); it is sent when it answers, the study goes on"

    def end(self, state: str) -> dict[str, Any]:
        """The study has completed or paused; waits a bounded time for the last of it to be sent.

        Args:
            state: ``completed`` or ``paused``.

        Returns:
            ``tracking`` of ``result.json``.
        """
        before = self._note()
        limit = END_REMOTE_S if self._is_remote() else END_LOCAL_S
        if before is not None and before.reason:
            limit = END_LOST_S
        self._say(state)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(limit)
        in_time = self._process.poll() is not None
        self.close()
        note = self._note()
        found: dict[str, Any] = {"status": "behind", "store": self._label()}
        if note is not None:
            found = summary_of(note, self._settings)
        unsent = _unsent(note, state)
        if not in_time or note is None or (state == "completed" and not note.finished):
            why = f"it took longer than {limit:.0f} s" if not in_time else "the sending process ended early"
            told = found.get("missing") if in_time else None
            found |= {"status": "behind", "missing": told or unsent}
            found["reason"] = found.get("reason") or why
        if found["status"] == "behind":
            found["remedy"] = REMEDY
        return found

    def close(self) -> None:
        """End the sending process, whatever it does: what it had not sent is sent later."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # it ends by itself when the pipe does
        try:
            self._process.wait(GONE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, word: str) -> None:
        # A full pipe means that words wait there already, and a closed one that nobody listens.
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), f"{word}\n".encode())

    def _note(self) -> StoreNote | None:
        try:
            return open_note(self._folder, label=self._label())
        except CardioNetsError:
            return None

    def _label(self) -> str:
        return label_of(self._settings)

    def _is_remote(self) -> bool:
        return not self._settings.uri.startswith(("sqlite:", "file:")) and bool(self._settings.uri)


def _unsent(note: StoreNote | None, state: str) -> list[str]:
    """What a store surely lacks when its time is over, or may lack: what was not noted as sent."""
    if state != "completed":
        return ["rounds"]
    counted = [] if note and note.final else ["rounds", "result"]
    return [*counted, "artefacts", *([] if note and note.model else ["model"])]


def unsent_text(found: Mapping[str, Any]) -> str:
    """What to say where ``tracking`` of a result is behind."""
    missing = ", ".join(found.get("missing", []))
    return (
        f"tracking: {found['store']} lacks {missing} ({found.get('reason', '')}); {found.get('remedy', '')}"
    )


def send_now(folder: Path) -> dict[str, Any]:
    """Send a finished study's folder as it is now, in a process beside; waits a bounded time.

    Returns:
        ``tracking`` of ``result.json``.
    """
    return Tracker(folder).end("completed")
