"""AUROC of each disease at each site, what the sites say together, and what a new site may expect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from simulation.pictures.canvas import OTHER, OURS, WARM, finish
from simulation.pictures.wording import DISEASE_WORDS


def picture_forest(result: Mapping[str, Any], path: Path, *, task: str = "screening") -> str | None:
    """A panel a disease; None where the study did not measure the task, or no site has an AUROC."""
    phases = [phase for phase in result["summary"]["phases"] if phase["task"] == task]
    together = {row["disease"]: row for row in phases[-1]["meta_analysis"]} if phases else {}
    if not together:
        return None
    test = next(e["test"] for e in reversed(result["rounds"]) if e["task"] == task and e.get("test"))
    members = {row["site"]: row["metrics"] for row in test["sites"] if row.get("metrics")}
    external = test["external"]
    names = [*members, "together", "a new site", *external]
    figure, axes = plt.subplots(
        1,
        len(together),
        figsize=(2.7 * len(together) + 1.0, 0.36 * len(names) + 1.9),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, (disease, row) in zip(axes[0], together.items(), strict=True):
        for place, site in enumerate(names):
            if site in members or site in external:
                metrics = members.get(site) or external[site]
                _site(axis, metrics, disease, place=place, colour=WARM if site in external else "0.4")
        _together(axis, row, place=len(members))
        _predicted(axis, row, place=len(members) + 1)
        axis.set_title(f"{DISEASE_WORDS[disease]}\nI² {row['i2']:.0%}, τ² {row['tau2']:.2f}", fontsize=9)
        axis.axvline(0.5, color="0.8", linewidth=1, zorder=0)
        axis.set(xlabel="AUROC", xlim=(0.0, 1.03), xticks=[0, 0.25, 0.5, 0.75, 1.0])
        axis.set_xticklabels(["0", "", "0.5", "", "1"])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(
        range(len(names)), [f"{name} (external)" if name in external else name for name in names]
    )
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle("Screening at each site: 95 % intervals, random-effects meta-analysis", fontsize=11)
    arrays = {
        f"{disease}_{key}": np.array(np.nan if row[key] is None else row[key])
        for disease, row in together.items()
        for key in ("auroc", "low", "high", "predicted_low", "predicted_high", "tau2", "i2")
    }
    return finish(figure, path, arrays)


def _site(axis: Axes, metrics: Mapping[str, float], disease: str, *, place: int, colour: str) -> None:
    if f"auroc/{disease}" not in metrics:
        axis.text(0.5, place, "too few", ha="center", va="center", fontsize=7, color="0.5")
        return
    ends = [metrics[name] for end in ("low", "high") if (name := f"auroc_{end}/{disease}") in metrics]
    if len(ends) == 2:
        axis.plot(ends, [place, place], color=colour, linewidth=1.5)
    # The area of a mark follows the number of ill people, which an AUROC's precision hangs on most.
    size = 12 + 2.5 * metrics.get(f"positives/{disease}", 0.0)
    axis.scatter(metrics[f"auroc/{disease}"], place, s=size, marker="s", color=colour, zorder=3)


def _together(axis: Axes, row: Mapping[str, Any], *, place: int) -> None:
    corners = [
        (row["low"], place),
        (row["auroc"], place - 0.28),
        (row["high"], place),
        (row["auroc"], place + 0.28),
    ]
    axis.fill(*zip(*corners, strict=True), color=OURS)


def _predicted(axis: Axes, row: Mapping[str, Any], *, place: int) -> None:
    low, high = row["predicted_low"], row["predicted_high"]
    if low is None or high is None or not np.isfinite([low, high]).all():
        axis.text(0.5, place, "needs 3 sites", ha="center", va="center", fontsize=7, color="0.5")
        return
    axis.plot([low, high], [place, place], color=OTHER, linewidth=5, solid_capstyle="butt")
