"""Reliability curves of each disease, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from cardionets_core.data.records import DISEASES
from cardionets_core.evaluation.comparison import wilson_interval
from simulation.calibration_curves import Reliability
from simulation.pictures.canvas import OTHER, OURS, finish
from simulation.pictures.wording import DISEASE_WORDS

LOOKS = {"before": (OTHER, "s", -0.008), "after": (OURS, "o", 0.008)}


def picture_calibration(curves: Mapping[str, Reliability], path: Path) -> str:
    """A panel a disease: predicted and observed share, with Wilson's intervals, over the rows' histogram."""
    figure, axes = plt.subplots(
        2,
        len(DISEASES),
        figsize=(3.0 * len(DISEASES), 4.4),
        squeeze=False,
        sharex=True,
        height_ratios=[3.2, 1],
        layout="constrained",
    )
    for place, disease in enumerate(DISEASES):
        upper, lower = axes[0][place], axes[1][place]
        upper.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
        for moment, curve in curves.items():
            _points(upper, lower, curve, place=place, moment=moment)
        upper.set(
            xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1]
        )
        upper.set_title(DISEASE_WORDS[disease], fontsize=9)
        upper.legend(fontsize=7, loc="upper left", handlelength=1, framealpha=0.85)
        lower.set_xlabel("predicted probability")
        for axis in (upper, lower):
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("observed share (95 %)")
    axes[1][0].set_ylabel("recordings")
    figure.suptitle("Are the probabilities true? Held-out people of the members", fontsize=11)
    arrays = {}
    for moment, curve in curves.items():
        arrays[f"{moment}_rows"] = curve.rows_Db
        arrays[f"{moment}_probability"] = curve.probability_Db
        arrays[f"{moment}_share"] = curve.share_Db
        arrays[f"{moment}_error"] = curve.error_D
    return finish(figure, path, arrays)


def _points(upper: Axes, lower: Axes, curve: Reliability, *, place: int, moment: str) -> None:
    colour, marker, shift = LOOKS[moment]
    rows_b, share_b = curve.rows_Db[place], curve.share_Db[place]
    filled = rows_b > 0
    ends = [
        wilson_interval(float(s * n), float(n)) for s, n in zip(share_b[filled], rows_b[filled], strict=True)
    ]
    x = curve.probability_Db[place][filled] + shift
    upper.vlines(
        x, [low for low, _ in ends], [high for _, high in ends], color=colour, linewidth=1.2, alpha=0.7
    )
    label = f"{moment}, ECE {curve.error_D[place]:.3f}"
    upper.plot(x, share_b[filled], marker=marker, color=colour, markersize=5, linewidth=1.2, label=label)
    edges = np.linspace(0.0, 1.0, len(rows_b) + 1)
    lower.stairs(rows_b, edges, color=colour, linewidth=1.5)
