"""Which round of each phase was best by its primary metric on held-out patients of all members."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def value_of(entry: Mapping[str, Any]) -> float | None:
    """The pooled primary metric after a round, or None if it was not measured or is not finite."""
    value = (entry.get("pooled") or {}).get(entry["primary"])
    if value is None:
        value = (
            (entry.get("test") or {}).get("pooled", {}).get(entry["primary"]) if _only_test(entry) else None
        )
    return float(value) if value is not None and math.isfinite(value) else None


def chance_of(metrics: Mapping[str, Any], metric: str) -> float | None:
    """What the metric would be by chance on these patients, or None where nobody reckoned that.

    Retrieval of five among six succeeds often: ``recall@5`` says nothing without ``chance@5``.
    """
    name, at, rank = metric.partition("@")
    value = metrics.get(f"chance@{rank}") if at and name == "recall" else None
    return float(value) if value is not None and math.isfinite(value) else None


def best_rounds(history: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """The best round of each phase that has any; of equal ones the earliest.

    A round whose metric comes with the replies of the next one is not judged until then.

    Args:
        history: one entry a finished round.

    Returns:
        Index of the phase to ``round``, ``task``, ``metric``, ``higher_is_better`` and ``value``.
    """
    best: dict[int, dict[str, Any]] = {}
    for entry in history:
        value, phase = value_of(entry), int(entry["phase"])
        if value is None:
            continue
        sign = 1.0 if entry["higher_is_better"] else -1.0
        if phase not in best or sign * value > sign * best[phase]["value"]:
            best[phase] = {
                "round": int(entry["round"]),
                "task": entry["task"],
                "metric": entry["primary"],
                "higher_is_better": bool(entry["higher_is_better"]),
                "value": value,
            }
    return best


def _only_test(entry: Mapping[str, Any]) -> bool:
    """A task that trains nothing is measured once, on the test patients."""
    return "pooled" not in entry
