"""How long a study will still take, by what its rounds took.

Comes in: the study and its history. Goes out: seconds, and how many phases they are a guess for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cardionets_core.config.study import Study

_LATEST = 10
"""Rounds that a mean is taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLeft:
    """What is left of a study.

    Attributes:
        seconds: for all rounds to come.
        untimed: phases to come of whose task no round was run yet; theirs count as the latest rounds did.
    """

    seconds: float
    untimed: int


def time_left(study: Study, history: Sequence[Mapping[str, Any]]) -> TimeLeft:
    """What is left after the last entry of a history.

    Args:
        study: what runs.
        history: an entry a finished round, with ``phase``, ``round``, ``task`` and ``seconds``; not empty.

    Returns:
        Each phase to come counts with the mean of the latest ten rounds of its own task.
    """
    last = history[-1]
    latest = [float(entry["seconds"]) for entry in history[-_LATEST:]]
    seconds, untimed = 0.0, 0
    for index, phase in enumerate(study.phases[last["phase"] :], start=last["phase"]):
        rounds = phase.rounds - (last["round"] if index == last["phase"] else 0)
        own = [
            float(entry["seconds"]) for entry in history if study.phases[entry["phase"]].title == phase.title
        ][-_LATEST:]
        untimed += not own
        seconds += rounds * float(np.mean(own or latest))
    return TimeLeft(seconds=seconds, untimed=untimed)
