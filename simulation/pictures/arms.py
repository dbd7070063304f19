"""The arms of a comparison with their intervals, and the federation without each of its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from simulation.holdout import WITHOUT
from simulation.pictures.canvas import OTHER, OURS, finish
from simulation.pictures.wording import METRIC_WORDS

Row = Mapping[str, Any]


def picture_arms(comparison: Sequence[Row], path: Path) -> str | None:
    """One panel a metric and population; the federation in colour. None where no arm has a value."""
    left_out = {row["arm"].removeprefix(WITHOUT) for row in comparison if row["arm"].startswith(WITHOUT)}
    rows = [row for row in comparison if row["population"] not in left_out]
    if all(row["mean"] is None for row in rows):
        return None
    kinds = list(dict.fromkeys((row["task"], row["metric"], row["population"]) for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    columns = min(len(kinds), 2)
    lines = -(-len(kinds) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(6.5 * columns, (0.38 * len(arms) + 1.3) * lines),
        squeeze=False,
        layout="constrained",
    )
    for axis, kind in zip(axes.flat, kinds, strict=False):
        found = [row for row in rows if (row["task"], row["metric"], row["population"]) == kind]
        for row in found:
            _interval(axis, row, place=len(arms) - 1 - arms.index(row["arm"]))
        axis.set_yticks(range(len(arms)), list(reversed(arms)))
        axis.set(
            xlabel=f"{kind[0]}: {METRIC_WORDS.get(kind[1], kind[1])} (95 % interval)",
            title=f"patients of {kind[2]}, n = {max(row['n'] for row in found)}",
            ylim=(-0.6, len(arms) - 0.4),
        )
        axis.grid(axis="x", alpha=0.3)
    for axis in list(axes.flat)[len(kinds) :]:
        axis.remove()
    return finish(figure, path, {})


def picture_left_out(comparison: Sequence[Row], path: Path) -> str | None:
    """Each member by the federation with it and without it, a panel a task; None where none was left out."""
    rows = [row for row in comparison if row["arm"].startswith(WITHOUT) and row["mean"] is not None]
    if not rows:
        return None
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    sites = sorted({row["population"] for row in rows})
    figure, axes = plt.subplots(
        1,
        len(tasks),
        figsize=(4.6 * len(tasks) + 0.8, 0.62 * len(sites) + 1.7),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for row in comparison:
            if row["task"] == task and row["population"] in sites and row["mean"] is not None:
                shift = -0.13 if row["arm"] == "federated" else 0.13
                place = sites.index(row["population"])
                _interval(axis, row, place=place + shift)
                axis.annotate(
                    f"n = {row['n']}",
                    (1.0, place),
                    xycoords=("axes fraction", "data"),
                    xytext=(-4, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=7,
                    color="0.4",
                )
        metric = next(row["metric"] for row in rows if row["task"] == task)
        axis.set(xlabel=f"{task}: {METRIC_WORDS.get(metric, metric)}", ylim=(len(sites) - 0.4, -0.6))
        axis.grid(axis="x", alpha=0.3)
        axis.margins(x=0.16)
    axes[0][0].set_yticks(range(len(sites)), sites)
    for colour, label in ((OURS, "federation with the site"), (OTHER, "federation that never saw the site")):
        axes[0][0].plot([], [], "o-", color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle("What a hospital may expect of a model that never saw it", fontsize=11)
    return finish(figure, path, {})


def _interval(axis: Any, row: Row, *, place: float) -> None:
    if row["mean"] is None:
        return
    colour = OURS if row["arm"] == "federated" else OTHER
    axis.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=2)
    axis.plot(row["mean"], place, "o", color=colour)
