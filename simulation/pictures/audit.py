"""An audit: what an adversary can tell of a canary, and what follows for epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from simulation.pictures.canvas import OTHER, OURS, WARM, finish

SOUND = "as it is"
DASHES = ((0, (1, 1)), (0, (4, 1)), (0, (2, 2)), "-", "-", (0, (6, 3)))


def picture_audit(content: Mapping[str, Any], statistics: Mapping[str, np.ndarray], path: Path) -> str:
    """A row a way of drawing patients: the sound mechanism's statistic, all ROC curves, all lower bounds.

    Args:
        content: of ``audit.json``.
        statistics: ``SAMPLING: MECHANISM: without`` and ``with``.
        path: of the picture.
    """
    samplings = list(dict.fromkeys(row["sampling"] for row in content["mechanisms"]))
    figure, axes = plt.subplots(
        len(samplings), 3, figsize=(17.0, 4.4 * len(samplings)), squeeze=False, layout="constrained"
    )
    for place, sampling in enumerate(samplings):
        rows = [row for row in content["mechanisms"] if row["sampling"] == sampling]
        claimed = rows[0]["claimed_epsilon"]
        name = f"{sampling} in each of {rows[0]['steps']} steps"
        of = {
            row["mechanism"]: tuple(
                statistics[f"{sampling}: {row['mechanism']}: {w}"] for w in ("without", "with")
            )
            for row in rows
        }
        _histograms(axes[place][0], *of[SOUND])
        axes[place][0].set_title(f"{name}: the mechanism as it is", fontsize=10)
        _curves(axes[place][1], of, epsilon=claimed, delta=content["delta"])
        _bounds(axes[place][2], rows, claimed=claimed)
    figure.suptitle(
        f"One canary; {content['mechanisms'][0]['trials']} trainings with it of the mechanism as it is, "
        f"{content['mechanisms'][1]['trials']} of each broken one, and as many without",
        fontsize=12,
    )
    return finish(figure, path, statistics)


def _histograms(axis: Axes, without_N: np.ndarray, with_N: np.ndarray) -> None:
    both = np.concatenate([without_N, with_N])
    low, high = (float(np.percentile(both, share)) for share in (0.5, 99.5))
    edges = np.linspace(low, high, 50).tolist()
    axis.hist(without_N, bins=edges, color=OTHER, alpha=0.6, label="without the canary")
    axis.hist(with_N, bins=edges, color=OURS, alpha=0.6, label="with the canary")
    axis.set(xlabel="the adversary's log-likelihood ratio", ylabel="trainings")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _curves(axis: Axes, of: Mapping[str, tuple[np.ndarray, ...]], *, epsilon: float, delta: float) -> None:
    least = 1.0 / max(len(each[0]) for each in of.values())
    rate = np.geomspace(least / 2, 1.0, 200)
    # Both ways round: a test of presence, and one of absence.
    allowed = np.minimum(math.exp(epsilon) * rate + delta, 1.0 - math.exp(-epsilon) * (1.0 - delta - rate))
    axis.fill_between(
        rate, np.clip(allowed, 0, 1), 1.0, color="0.92", label=f"excluded by epsilon {epsilon:.1f}"
    )
    # Curves of different mechanisms may lie on one another: dashes of their own show all.
    broken = zip(plt.get_cmap("Dark2").colors, DASHES, strict=False)  # type: ignore[attr-defined]
    for name, (without_N, with_N) in of.items():
        order = np.sort(np.concatenate([without_N, with_N]))[::-1]
        false = 1.0 - np.searchsorted(np.sort(without_N), order, side="left") / len(without_N)
        true = 1.0 - np.searchsorted(np.sort(with_N), order, side="left") / len(with_N)
        colour, dashes = (OURS, "-") if name == SOUND else next(broken)
        axis.plot(
            np.maximum(false, least / 2),
            true,
            color=colour,
            linestyle=dashes,
            linewidth=2.2 if name == SOUND else 1.5,
            label=name,
        )
    axis.set(
        xscale="log", xlim=(least / 2, 1), ylim=(0, 1.02), xlabel="false positives", ylabel="true positives"
    )
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _bounds(axis: Axes, rows: list[Mapping[str, Any]], *, claimed: float) -> None:
    places = np.arange(len(rows))
    axis.barh(
        places + 0.2, [row["lower_bound"] for row in rows], height=0.36, color=OURS, label="any mechanism"
    )
    if rows[0]["lower_bound_gaussian"] is not None:
        values = [row["lower_bound_gaussian"] for row in rows]
        axis.barh(places - 0.2, values, height=0.36, color=OTHER, label="Gaussian mechanisms")
    axis.axvline(claimed, color=WARM, label="claimed")
    axis.set_yticks(places, [row["mechanism"] for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="lower bound on epsilon at 95 % confidence")
    axis.legend(fontsize=8, loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)
