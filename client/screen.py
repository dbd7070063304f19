"""What hospital IT sees on stderr while something long runs: a bar with an estimate, or plain lines.

A bar is drawn on a terminal only; a log file or a scheduler's mail gets a line every so often, so that nobody
takes a long silence for a fault.
"""

from __future__ import annotations

import time
from typing import Any, Self, TextIO

PLAIN_EVERY_S = 10.0
WORDS = {
    "list": "listing the recordings",
    "read": "reading the recordings",
    "publish": "putting the cache together",
    "report": "writing the report",
    "sample": "reading a sample",
}


class Screen:
    """Progress of counted work; use it as a context.

    Args:
        stream: where to write.
        live: True to draw a bar; default: where the stream is a terminal.
        clock: seconds; tests pass their own.

    Attributes:
        reached: stage to (done, total) as they were told last.
    """

    def __init__(self, stream: TextIO, *, live: bool | None = None, clock: Any = time.monotonic) -> None:
        self._stream = stream
        self._live = stream.isatty() if live is None else live
        self._clock = clock
        self.reached: dict[str, tuple[int, int]] = {}
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._begun: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("·"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(file=self._stream),
            )
            self._bar.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, stage: str, done: int, total: int) -> None:
        """Progress: ``done`` of ``total`` in a stage of ``WORDS``, or of any other name."""
        self.reached[stage] = (done, total)
        words = WORDS.get(stage, stage)
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(words, total=total)
            self._bar.update(self._tasks[stage], completed=done, total=total)
            return
        now = self._clock()
        first = stage not in self._begun
        begun = self._begun.setdefault(stage, now)
        if done < total and not first and now - self._told[stage] < PLAIN_EVERY_S:
            return
        self._told[stage] = now
        self._line(f"{words} · {done:,} of {total:,}{_estimate(done, total, now - begun)}")

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._line(text)

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def _estimate(done: int, total: int, seconds: float) -> str:
    """What is left, from the pace so far; nothing where there is none yet."""
    if done >= total or done <= 0 or seconds <= 0:
        return ""
    left = seconds * (total - done) / done
    if left < 90:
        return f", about {left:.0f} s left"
    minutes = round(left / 60)
    return f", about {minutes} min left" if minutes < 120 else f", about {minutes / 60:.0f} h left"
