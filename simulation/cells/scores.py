"""Scores as a cell's result, and back: every bit is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulation.cells.cell import CellResult
from simulation.scoring import Columns, Score

WORDS = ("arm", "task", "metric", "population", "mean", "patients")


def result_of_scores(scores: Sequence[Score]) -> CellResult:
    """The result that holds some scores in their order."""
    arrays: dict[str, np.ndarray] = {}
    for index, score in enumerate(scores):
        arrays[f"replicates-{index}"] = score.replicates
        if score.columns is not None:
            arrays[f"r2-{index}"] = score.columns.r2_K
            arrays[f"r2-replicates-{index}"] = score.columns.replicates_MK
    rows = [{word: getattr(score, word) for word in WORDS} for score in scores]
    return CellResult(content={"scores": rows}, arrays=arrays)


def scores_of(result: CellResult) -> list[Score]:
    """What ``result_of_scores`` was given."""
    found = []
    for index, row in enumerate(result.content["scores"]):
        columns = None
        if f"r2-{index}" in result.arrays:
            columns = Columns(
                r2_K=result.arrays[f"r2-{index}"], replicates_MK=result.arrays[f"r2-replicates-{index}"]
            )
        found.append(Score(**row, replicates=result.arrays[f"replicates-{index}"], columns=columns))
    return found
