"""What the researcher sees on stderr while a scenario runs: a live line on a terminal, else plain lines."""

from __future__ import annotations

import time
from typing import TextIO

from server.progress import Event, line

PLAIN_EVERY_S = 2.0


class Screen:
    """Progress on stderr.

    Args:
        stream: where to write.
        live: True to redraw one line (a terminal), False for plain lines.
        quiet: True to say nothing but warnings.
    """

    def __init__(self, stream: TextIO, *, live: bool, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._console = None
        self._status = None
        self._last: dict[str, float] = {}
        if live and not quiet:
            from rich.console import Console

            self._console = Console(file=stream)
            self._status = self._console.status("starting")
            self._status.start()

    def stage(self, what: str, done: int, total: int) -> None:
        """Progress of a counted piece of work; ``what`` names it."""
        now = time.monotonic()
        if done < total and now - self._last.get(what, 0.0) < PLAIN_EVERY_S:
            return
        self._last[what] = now
        self._say(f"{what} · {done} of {total}", lasting=done >= total)

    def event(self, event: Event) -> None:
        """An event of the study."""
        self._say(line(event), lasting=event.kind in ("round", "left-out", "paused", "census"))

    def note(self, text: str) -> None:
        """A line that stays."""
        self._say(text, lasting=True)

    def warn(self, text: str) -> None:
        """A line that stays even when the screen is quiet."""
        if self._console:
            self._console.print(text, markup=False, highlight=False)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Stop redrawing."""
        if self._status:
            self._status.stop()

    def _say(self, text: str, *, lasting: bool) -> None:
        if self._quiet:
            return
        if self._status and self._console:
            from rich.text import Text

            self._status.update(Text(text))
            if lasting:
                self._console.print(text, markup=False, highlight=False)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()
