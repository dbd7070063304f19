"""Writes ``report.html`` into the run folder, for whoever runs the study.

Comes in: checkpoints as they are made. Goes out: the page, replaced whole, and drawn samples. Nothing that
happens here stops a study: what fails is told once as a warning, and the next round tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.durable import write_whole
from server.checkpoint import Checkpoint
from server.link.admission import heard_online
from server.page.drawings import Drawer
from server.page.facts import RunFacts, RunReader
from server.page.privacy import privacy_content
from server.page.render import report_html

REPORT = "report.html"
SHARE = 0.05
"""Of the time of a round that a page may take; where it takes more, some rounds write none."""
ALWAYS_S = 0.5
"""A page that takes no longer is written each round, however quick the rounds are."""

COMPLETED_S, PAUSED_S = 600.0, 20.0
"""For the reckoning of what is spent, of the last page; whoever resumes a paused study waits for it."""


class PageWriter:
    """The page of one run folder.

    Args:
        study: the study.
        folder: of the run.
        warn: told of what fails.
    """

    def __init__(self, study: Study, folder: Path, *, warn: Callable[[str], None]) -> None:
        self._study = study
        self._path = folder / REPORT
        self._reader = RunReader(folder)
        self._drawer = Drawer(study, folder)
        self._warn = warn
        self._warned: set[str] = set()
        self._owed_s = 0.0
        # In a workspace the run folder is DIR/runs/NAME, and the link's keeper notes who is heard.
        self._state = folder.resolve().parent.parent / "state"

    def round(self, checkpoint: Checkpoint, status: dict[str, Any], *, round_s: float) -> None:
        """A round has ended."""
        drawn = self._safely(lambda: self._drawer.after_round(checkpoint, round_s=round_s), "sample cines")
        # Large studies with quick rounds: a page that takes long is written less often.
        self._owed_s = max(0.0, self._owed_s - max(ALWAYS_S, SHARE * round_s))
        if not self._owed_s or drawn:
            self._write(checkpoint, status)

    def ended(self, checkpoint: Checkpoint | None, status: dict[str, Any]) -> None:
        """The study is complete or paused; its result is on the disk."""
        self._write(checkpoint, status)
        if self._study.privacy.mechanism != "none":
            # The page above has what there was time for; this one is read for good.
            within_s = COMPLETED_S if status["state"] == "completed" else PAUSED_S
            self._safely(lambda: privacy_content(self._facts(checkpoint, status), within_s=within_s), REPORT)
            self._write(checkpoint, status)

    def _facts(self, checkpoint: Checkpoint | None, status: dict[str, Any]) -> RunFacts:
        history = [] if checkpoint is None else checkpoint.history
        return self._reader.read(history=history, status=status, around={"online": heard_online(self._state)})

    def _write(self, checkpoint: Checkpoint | None, status: dict[str, Any]) -> None:
        begin = time.monotonic()

        def write() -> None:
            facts = self._facts(checkpoint, status)
            write_whole(self._path, report_html(facts).encode(), wait=False)

        self._safely(write, "the study page")
        self._owed_s += time.monotonic() - begin

    def _safely(self, do: Callable[[], Any], what: str) -> Any:
        try:
            return do()
        except Exception as error:  # a page is worth no study
            why = next(iter(str(error).splitlines()), type(error).__name__)
            text = f"{what} could not be made: {why}"
            if text not in self._warned:
                self._warned.add(text)
                self._warn(text)
            return None
