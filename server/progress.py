"""What the coordinator sees while a study runs: events, and how they read as lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened in a study.

    Attributes:
        kind: ``census``, ``trained``, ``left-out``, ``round``, ``warning`` or ``paused``.
        task: name of the phase's task.
        phase: number of the phase, from 1, of ``phases``.
        round: number of the round, from 1, of ``rounds``.
        site: the site, or empty.
        text: what there is to say: counts, a code, metrics.
        loss: mean local loss, or None.
        left_s: seconds that the study will still take, if that can be guessed yet.
        untimed: phases to come of a task that was not timed yet, with ``left_s``.
        code: why the site sits or was left out; else empty.
        attempt: number of the round's attempt, or 0 where that does not matter.
    """

    kind: str
    task: str
    phase: int
    phases: int
    round: int
    rounds: int
    site: str = ""
    text: str = ""
    loss: float | None = None
    left_s: float | None = None
    untimed: int = 0
    code: str = ""
    attempt: int = 0


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Progress that nobody watches."""


def line(event: Event) -> str:
    """One plain line of an event."""
    parts = [f"phase {event.phase}/{event.phases} {event.task}"]
    if event.round:
        parts.append(f"round {event.round}/{event.rounds}")
    if event.site:
        parts.append(event.site)
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4f}")
    if event.text:
        parts.append(event.text)
    if event.left_s is not None:
        parts.append(left_words(event.left_s, event.untimed))
    return " · ".join(parts)


def left_words(seconds: float, untimed: int) -> str:
    """How long a study will still take, and of how many phases that is a mere guess."""
    guessed = f" ({untimed} phase{'s' * (untimed > 1)} to come not timed yet)" if untimed else ""
    return f"about {_duration(seconds)} left{guessed}"


def _duration(seconds: float) -> str:
    whole = int(seconds + 0.5)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"
