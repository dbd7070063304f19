"""What is said of a study beside its place: what it waits for, how good it is, what to do next.

Comes in: the study's part of the overview. Goes out: lines for people, the same for ``status`` and the live
view; the study page borrows words of them. Nothing is read here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from server.progress import left_words

ENDED = ("completed", "paused", "failed")
UNDER_WAY = ("waiting", "running")
BUDGET_SPENT = (
    "a further round would pass its epsilon",
    "its IT may raise the limit or leave the study, which goes on without it while enough sites are left",
)
"""What is the matter with a site whose budget is spent, and what can be done."""
AGAIN = "starting again"
"""The process of the study ended by itself, and the service has not begun the next one yet."""


def not_begun(study: dict[str, Any]) -> str:
    """That no study was begun, and what to do first."""
    return f"study: not begun; next: {study.get('next') or 'cardionets-server run DIR'}"


def waited_for(waiting: Mapping[str, Any]) -> str:
    """The sites that are waited for; nodes that have said no name yet are counted: numbers tell nothing."""
    sites = waiting.get("sites") or ()
    named = [str(site["site"]) for site in sites if site["site"] != f"node-{site.get('node')}"]
    unnamed = len(sites) - len(named)
    if unnamed:
        named.append(f"{unnamed} site{'s' * (unnamed > 1)} not heard by name yet")
    return ", ".join(named) or str(waiting.get("reason", ""))


def study_notes(study: dict[str, Any]) -> list[str]:
    """What else is said of a study: what it waits for, how good it is, how long it takes."""
    lines = []
    if study["state"] == "stopped":
        lines.append("nothing of it runs; it goes on when the service does: cardionets-server start")
    if study["state"] == AGAIN:
        lines.append("its process ended; the service begins it again, finished rounds are kept")
    if study["pause_requested"]:
        lines.append("pauses after the round that runs")
    waiting = study.get("waiting_for") if study["state"] in UNDER_WAY else None
    if waiting:
        lines.append(f"waits for {waited_for(waiting)} until {_clock(waiting['until_s'])}")
    lines += primary_note(study)
    if study.get("left_s") is not None and study["state"] in UNDER_WAY:
        lines.append(left_words(study["left_s"], study.get("left_untimed") or 0))
    return lines


def primary_values(study: dict[str, Any]) -> list[float]:
    """The primary metric of the newest phase that has one, round by round, where it is known."""
    primary = study.get("primary") or {}
    return [entry["value"] for entry in primary.get("values", ()) if entry["value"] is not None]


def primary_note(study: dict[str, Any]) -> list[str]:
    """The newest of them in words; nothing where none is known."""
    phase = (study.get("primary") or {}).get("phase")
    of = ""
    if phase not in (None, study.get("phase")):  # the heading names the phase that is asked for now
        task = (study.get("best") or {}).get(str(phase - 1), {}).get("task", "")
        of = f" of phase {phase} {task}".rstrip()
    return [
        f"held-out {study['primary'].get('name')}{of}: {value:.4f} "
        f"({'higher' if study['primary'].get('higher_is_better') else 'lower'} is better)"
        for value in primary_values(study)[-1:]
    ]


def _clock(moment_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment_s))
