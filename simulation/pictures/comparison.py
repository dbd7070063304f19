"""A forest plot of the arms of a comparison: each arm's metric, and what it adds to the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from simulation.comparison import table_rows
from simulation.pictures.canvas import OTHER, OURS, finish
from simulation.pictures.wording import METRIC_WORDS

Row = Mapping[str, Any]


def picture_comparison(content: Mapping[str, Any], path: Path) -> str | None:
    """Two panels a metric and population, as PNG and as SVG beside it; None where no arm has a value.

    Args:
        content: of ``comparison.json``.
        path: of the PNG.
    """
    rows = table_rows(content)
    seeds = {
        (row["arm"], row["task"], row["population"]): row.get("by_seed", ()) for row in content["comparison"]
    }
    kinds = list(
        dict.fromkeys(
            (row["task"], row["metric"], row["population"]) for row in rows if row["mean"] is not None
        )
    )
    if not kinds:
        return None
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    figure, axes = plt.subplots(
        len(kinds),
        2,
        figsize=(10.5, (0.36 * len(arms) + 1.5) * len(kinds) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for (value_axis, difference_axis), (task, metric, population) in zip(axes, kinds, strict=True):
        found = {row["arm"]: row for row in rows if (row["task"], row["population"]) == (task, population)}
        for place, arm in enumerate(arms):
            row = found.get(arm)
            if row is None or row["mean"] is None:
                reason = row["reason"] if row is not None else "not measured"
                value_axis.text(
                    0.5, place, reason, transform=value_axis.get_yaxis_transform(), ha="center", va="center",
                    fontsize=7, color="0.5",
                )  # fmt: skip
                continue
            colour = OURS if arm == content["baseline"] else "0.35"
            _interval(value_axis, row["ci_low"], row["ci_high"], row["mean"], place, colour=colour)
            _dots(value_axis, seeds[arm, task, population], place)
            if row["difference"] is not None:
                low, high = row["difference_low"], row["difference_high"]
                _interval(difference_axis, low, high, row["difference"], place, colour=colour)
        words = METRIC_WORDS.get(metric, metric)
        measured = max(row["n"] for row in found.values() if row["n"])
        value_axis.set_yticks(range(len(arms)), arms)
        value_axis.set(xlabel=f"{task}: {words}", title=f"patients of {population}, n = {measured}")
        difference_axis.set_yticks(range(len(arms)), [""] * len(arms))
        difference_axis.axvline(0.0, color="0.6", linewidth=1, zorder=0)
        difference_axis.set(xlabel=f"minus {content['baseline']}", title="paired difference")
        for axis in (value_axis, difference_axis):
            axis.set_ylim(len(arms) - 0.4, -0.6)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
            axis.grid(axis="x", alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    count = len(content["seeds"])
    dots = f"; dots: each of {count} seeds" if count > 1 else ""
    figure.suptitle(f"{content['scenario']}: lines are 95 % intervals over patients{dots}", fontsize=11)
    with plt.rc_context({"svg.hashsalt": "cardionets"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return finish(figure, path, {})


def _interval(axis: Axes, low: float, high: float, mean: float, place: int, *, colour: str) -> None:
    if low is not None and high is not None:
        axis.plot([low, high], [place, place], color=colour, linewidth=2)
    axis.plot(mean, place, "s", color=colour, markersize=5, zorder=3)


def _dots(axis: Axes, values: Sequence[float], place: int) -> None:
    if len(values) > 1:
        axis.plot(values, [place + 0.25] * len(values), ".", color=OTHER, markersize=4)
