"""What the page shows of drawn cines, from ``drawn.json`` alone; it loads no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cardionets_core.tasks.short_axis import LONG_AXIS, view_of
from server.page.facts import RunFacts

TASK = "generate"
"""The task whose phase draws; the page shows the 4-chamber view alone."""


def drawings_content(facts: RunFacts) -> dict[str, Any]:
    """``hearts``, and a ``note`` on when and how they were drawn; no hearts where nothing was drawn yet."""
    drawn = facts.drawn
    plans = [
        index
        for index, phase in enumerate(facts.study.phases)
        if phase.task == TASK and view_of(phase.options) == LONG_AXIS
    ]
    if drawn.get("study_digest") != facts.study.digest or not drawn.get("hearts"):
        note = f"Nothing is drawn before phase {plans[0] + 1} has been measured." if plans else ""
        return {"hearts": [], "note": note}
    hearts: Sequence[Any] = drawn["hearts"]
    where = f"phase {drawn['phase'] + 1}, round {drawn['round']}"
    note = f"Drawn by the model after {where}, in {drawn['seconds']:.1f} s."
    if len(hearts) < int(drawn.get("of") or 0):
        note += f" Only {len(hearts)} of {drawn['of']} were drawn: more would have held the study up."
    return {"hearts": hearts, "note": note}
