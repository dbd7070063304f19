"""A round while it is open, and how its entry of the history follows from what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cardionets_core.exchange.messages import MEASURED, RoundName
from cardionets_core.tasks import Task
from server.checkpoints import Checkpoint
from server.round_folder import RoundFolder
from server.round_store import RoundStore


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    """One round.

    Attributes:
        name: of the round; its attempt does not matter here.
        task: of the phase.
        checkpoint: the model that the sites start from.
        folder: of the round.
        measure: whether the sites first measure the model that they get.
    """

    name: RoundName
    task: Task
    checkpoint: Checkpoint
    folder: RoundFolder
    measure: bool = False


def round_entry(name: RoundName, task: Task) -> dict[str, Any]:
    """What every round's entry of the history begins with."""
    return {
        "phase": name.phase,
        "task": task.name,
        "primary": task.primary,
        "higher_is_better": task.higher_is_better,
        "round": name.round,
        "attempt": name.attempt,
    }


def trained_row(store: RoundStore, site: str) -> dict[str, Any]:
    """A site's row of the round's entry, as its stored reply tells it."""
    facts = store.facts(site)
    return {
        "site": site,
        "status": "trained",
        "code": "",
        "bytes": facts["bytes"],
        "samples": facts["samples"],
        **facts["values"],
    }


def left_out_row(site: str, code: str) -> dict[str, Any]:
    """The row of a site that gave nothing."""
    return {"site": site, "status": "left-out", "code": code, "bytes": 0}


def measured_before(store: RoundStore, site: str) -> dict[str, np.ndarray]:
    """The metric sums that came with a stored reply to an order to train."""
    sums = store.sums(site)
    return {name.removeprefix(MEASURED): v for name, v in sums.items() if name.startswith(MEASURED)}
