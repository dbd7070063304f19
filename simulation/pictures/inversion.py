"""A true ECG beside what an attacker reads out of an update, and how much of it that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from cardionets_core.data.cohort import ECG_RATE_HZ
from cardionets_core.data.records import LEADS
from simulation.pictures.canvas import OTHER, OURS, WARM, finish

SHOWN_LEADS = ("I", "II", "V1", "V3", "V5")


def picture_inversion(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: Path) -> str:
    """Above, a column a case with some leads; below, the correlation of each case, and over the noise.

    Args:
        content: of ``inversion.json``.
        arrays: the first true window and its guess of each case, ``truth: CASE`` and ``guess: CASE``.
        path: of the picture.
    """
    cases = [row for row in content["cases"] if not row["case"].startswith("noise ")]
    figure = plt.figure(figsize=(2.7 * len(cases), 11.0), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(2.2, 1.0), squeeze=False)
    above, below = parts[0, 0], parts[1, 0]
    axes = above.subplots(len(SHOWN_LEADS), len(cases), sharex=True, squeeze=False)
    for column, row in enumerate(cases):
        for place, lead in enumerate(SHOWN_LEADS):
            index = LEADS.index(lead)
            axis = axes[place][column]
            _lead(axis, arrays[f"truth: {row['case']}"][index], arrays[f"guess: {row['case']}"][index])
            if column == 0:
                axis.set_ylabel(lead, rotation=0, ha="right", va="center")
        axes[0][column].set_title(f"{row['case']}\nr {row['r']:.2f}, {row['snr_db']:.1f} dB", fontsize=9)
        axes[-1][column].set_xlabel("s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    above.legend(handles, labels, loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    above.suptitle("One standardised 12-lead window, and what the server makes of what it sees", fontsize=11)
    _numbers(below, content)
    return finish(figure, path, arrays)


def _lead(axis: Axes, true_T: np.ndarray, made_T: np.ndarray) -> None:
    seconds = np.arange(len(true_T)) / ECG_RATE_HZ
    axis.plot(seconds, true_T, color="black", linewidth=0.9, label="the true window")
    axis.plot(seconds, made_T, color=WARM, linewidth=0.9, alpha=0.85, label="reconstructed")
    low, high = float(true_T.min()), float(true_T.max())
    room = 0.35 * (high - low)
    axis.set(xlim=(0.0, seconds[-1]), ylim=(low - room, high + room), yticks=[])
    axis.spines[["top", "right", "left"]].set_visible(False)


def _noise(row: Mapping[str, Any]) -> float:
    return float(row["noise_multiplier"])


def _numbers(figure: SubFigure, content: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    null, rows = content["null"], content["cases"]
    shown = [row for row in rows if not row["case"].startswith("noise ")]
    left.barh([row["case"] for row in shown], [row["r"] for row in shown], color=OURS, height=0.6)
    left.invert_yaxis()
    noisy = sorted(
        (row for row in rows if row.get("noise_multiplier")), key=lambda row: row["noise_multiplier"]
    )
    right.semilogx([r["noise_multiplier"] for r in noisy], [r["r"] for r in noisy], marker="o", color=OURS)
    for row in noisy:
        if row["case"].startswith("dp"):
            right.annotate(
                row["case"].removeprefix("dp, "),
                (row["noise_multiplier"], row["r"]),
                xytext=(0, 8),
                textcoords="offset points",
                fontsize=8,
                ha="right",
            )
    words = f"other people's ECGs: median to best of {null['people']:.0f}"
    left.axvspan(null["median"], null["best"], color=OTHER, alpha=0.3, linewidth=0, label=words)
    right.axhspan(null["median"], null["best"], color=OTHER, alpha=0.3, linewidth=0, label=words)
    left.set(xlabel="correlation with the true window, mean of 12 leads", xlim=(-0.25, 1))
    right.set(xlabel="noise of the step over its clip", ylabel="correlation", ylim=(-0.25, 1))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, loc="lower right" if axis is left else "upper right")
