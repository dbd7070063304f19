"""R2 of each phenotype: the federation beside the encoder that was never aligned, and their difference.

Legend: K phenotypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from cardionets_core.data.phenotypes import PHENOTYPES
from simulation.pictures.canvas import OTHER, OURS, WARM, finish
from simulation.scoring import MEMBERS, PHENOTYPE_TASKS

LEVEL = 0.05
BAR = 0.38


def picture_phenotypes(result: Mapping[str, Any], path: Path) -> str | None:
    """One picture of the task that is preferred, on the members' patients; None without phenotypes.

    Without a comparison the bars are the study's own, from its history, and there is no difference.
    """
    columns = _compared(result) or _measured(result)
    if not columns:
        return None
    compared = "r2_other" in columns[0]
    figure, axes = plt.subplots(
        1,
        2 if compared else 1,
        figsize=(12.5 if compared else 8.5, 0.27 * len(columns) + 1.9),
        squeeze=False,
        sharey=True,
        width_ratios=[1.5, 1] if compared else [1],
        layout="constrained",
    )
    _bars(axes[0][0], columns)
    if compared:
        _differences(axes[0][1], columns)
        figure.legend(loc="outside lower left", ncols=2, fontsize=8, frameon=False)
    measured = f"{len(columns)} of {len(PHENOTYPES)} that the hospitals measured"
    figure.suptitle(f"CMR phenotypes from the ECG ({measured}), held-out people of the members", fontsize=11)
    arrays = {
        name: np.array([column[name] for column in columns])
        for name in columns[0]
        if name not in ("name", "title")
    }
    return finish(figure, path, arrays)


def _compared(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = {
        row["task"]: row["columns"]
        for row in result.get("differences", [])
        if row["population"] == MEMBERS and row.get("columns")
    }
    return next((found[task] for task in PHENOTYPE_TASKS if task in found), [])


def _measured(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    pooled = {entry["task"]: entry["test"]["pooled"] for entry in result["rounds"] if entry.get("test")}
    metrics: Mapping[str, float] = next((pooled[task] for task in PHENOTYPE_TASKS if pooled.get(task)), {})
    return [
        {"field": each.field, "title": each.title, "r2": metrics[f"r2/{each.field}"]}
        for each in PHENOTYPES
        if f"r2/{each.field}" in metrics
    ]


def _bars(axis: Axes, columns: list[dict[str, Any]]) -> None:
    places = np.arange(len(columns))
    ours = [column["r2"] for column in columns]
    if "r2_other" in columns[0]:
        others = [column["r2_other"] for column in columns]
        axis.barh(places - BAR / 2, ours, height=BAR, color=OURS, label="federated, aligned")
        axis.barh(places + BAR / 2, others, height=BAR, color=OTHER, label="federated, not aligned")
    else:
        axis.barh(places, ours, height=2 * BAR, color=OURS)
    axis.set_yticks(places, [column["title"] for column in columns], fontsize=8)
    axis.set(xlabel="R²", ylim=(len(columns) - 0.4, -0.6))
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _differences(axis: Axes, columns: list[dict[str, Any]]) -> None:
    for place, column in enumerate(columns):
        sure = column["p_holm"] is not None and column["p_holm"] < LEVEL
        colour = WARM if sure else "0.45"
        axis.plot([column["ci_low"], column["ci_high"]], [place, place], color=colour, linewidth=1.8)
        axis.plot(column["difference"], place, "o", color=colour, markersize=4.5)
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.set_xlabel("difference in R², 95 % interval")
    axis.set_title(f"in colour: p < {LEVEL:g} after Holm over {len(columns)} phenotypes", fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
