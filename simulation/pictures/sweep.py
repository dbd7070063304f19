"""A sweep: the metric over the values of each key, a dot a cell, and the mean over all other keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from simulation.pictures.canvas import OTHER, OURS, WARM, finish

LARGEST_RATIO = 20.0
"""Of two numbers on one plain axis; beyond it the axis is logarithmic."""


def picture_sweep(content: Mapping[str, Any], path: Path) -> str | None:
    """A panel a key, as PNG and as SVG beside it; None where no cell has a value.

    Args:
        content: of ``sweep.json``.
        path: of the PNG.
    """
    rows = [row for row in content["rows"] if row["value"] is not None]
    if not rows:
        return None
    keys = [key for key in content["keys"] if len({str(row["values"][key]) for row in rows}) > 1]
    keys = keys or content["keys"][:1]
    columns = min(3, len(keys))
    lines = -(-len(keys) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(4.4 * columns + 0.6, 3.4 * lines + 0.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, key in zip(axes.flat, keys, strict=False):
        _panel(axis, rows, key, best=rows[0])
    for axis in list(axes.flat)[len(keys) :]:
        axis.remove()
    for axis in axes[:, 0]:
        axis.set_ylabel(content["metric"])
    means = "; line: mean over the other keys" if len(keys) > 1 else "; line: mean"
    figure.suptitle(f"{content['scenario']}: a dot a cell{means}; ringed: the best", fontsize=11)
    with plt.rc_context({"svg.hashsalt": "cardionets"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return finish(figure, path, {})


def _panel(axis: Axes, rows: Sequence[Mapping[str, Any]], key: str, *, best: Mapping[str, Any]) -> None:
    values = list(dict.fromkeys(row["values"][key] for row in rows))
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    values = sorted(values) if plain else sorted(values, key=str)
    places = {value: float(value) if plain else float(index) for index, value in enumerate(values)}
    axis.plot(
        [places[row["values"][key]] for row in rows], [row["value"] for row in rows], "o", color=OTHER,
        markersize=4,
    )  # fmt: skip
    means = [
        float(np.mean([row["value"] for row in rows if row["values"][key] == value])) for value in values
    ]
    axis.plot([places[value] for value in values], means, "-" if plain else "s", color=OURS, linewidth=1.5)
    axis.plot(
        places[best["values"][key]], best["value"], "o", markersize=9, markerfacecolor="none", color=WARM
    )
    if not plain:
        axis.set_xticks(range(len(values)), [str(value) for value in values], rotation=20, ha="right")
        axis.margins(x=0.2)
    elif min(values) > 0 and max(values) / min(values) > LARGEST_RATIO:
        axis.set_xscale("log")
    elif len(values) <= 8:
        axis.set_xticks([places[value] for value in values], [f"{value:g}" for value in values])
    axis.set_xlabel(key)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
