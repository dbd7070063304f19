"""A study's mirror as its run sees it: events go through it, and whatever fails in it becomes a warning.

Comes in: events, and the result at the end. Goes out: the same events, warnings beside them, and ``tracking``
of the result. A study that is not to be tracked, or whose mirror cannot begin, goes on as if there were none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardionets_core.errors import CardioNetsError
from server.progress import Event, Progress
from server.tracking.tracker import Tracker, unsent_text


class Mirror:
    """Of one run of a study.

    Args:
        folder: the run folder, with ``study.json`` in it.
        on: whether the study is tracked.
        progress: where events go on to.
    """

    def __init__(self, folder: Path, *, on: bool, progress: Progress) -> None:
        self._progress = progress
        self._last: Event | None = None
        self._tracker: Tracker | None = None
        self._fault = ""
        self.note: Callable[[Event], None] = lambda event: None
        """Told of warnings too: the status board of the run."""
        if on:
            try:
                self._tracker = Tracker(folder)
            except (CardioNetsError, OSError) as error:
                self._fault = str(error).replace("\n", "; ")

    def event(self, event: Event) -> None:
        """Pass an event on; of a finished round the sending process is told first."""
        first = self._last is None
        self._last = event
        text = self._tracker.round() if self._tracker and event.kind == "round" else ""
        self._progress(event)
        if first and self._fault:
            text = f"tracking: the study goes on without MLflow ({self._fault})"
        self._warn(text)

    def end(self, state: str) -> dict[str, Any] | None:
        """The study has ``completed`` or ``paused``: waits a bounded time for what is on its way.

        Returns:
            ``tracking`` of ``result.json``; None where the study is not tracked.
        """
        if self._tracker is None:
            return {"status": "failed", "reason": self._fault} if self._fault else None
        found = self._tracker.end(state)
        if found["status"] != "written":
            self._warn(unsent_text(found))
        return found

    def close(self) -> None:
        """End the sending process, if it still runs."""
        if self._tracker is not None:
            self._tracker.close()

    def _warn(self, text: str) -> None:
        if text and self._last is not None:
            warning = dataclasses.replace(
                self._last, kind="warning", text=text, left_s=None, site="", code=""
            )
            warning = dataclasses.replace(warning, loss=None)
            self.note(warning)
            self._progress(warning)
