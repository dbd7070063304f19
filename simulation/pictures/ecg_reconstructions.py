"""A held-out ECG of each site beside what the masked autoencoder makes of its hidden patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from cardionets_core.data.records import LEADS
from simulation.pictures.canvas import WARM, finish
from simulation.reconstruct import MaskedEcgs

SHOWN_LEADS = ("I", "II", "V1", "V3", "V5")


def picture_masked_ecgs(found: MaskedEcgs, path: Path, *, most: int = 4) -> str:
    """A column a site; hidden stretches are shaded, the reconstruction lies over the truth."""
    sites = found.sites[:most]
    figure, axes = plt.subplots(
        len(SHOWN_LEADS),
        len(sites),
        figsize=(4.2 * len(sites), 1.35 * len(SHOWN_LEADS) + 1.0),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for column, site in enumerate(sites):
        for row, lead in enumerate(SHOWN_LEADS):
            place = LEADS.index(lead)
            axis = axes[row][column]
            _lead(
                axis,
                found.real_RLT[column, place],
                found.made_RLT[column, place],
                hidden_T=found.hidden_RLT[column, place],
                rate_hz=found.rate_hz,
            )
            if column == 0:
                axis.set_ylabel(lead, rotation=0, ha="right", va="center")
        correlation = _correlation(found.real_RLT[column], found.made_RLT[column], found.hidden_RLT[column])
        axes[0][column].set_title(f"{site} · r of all hidden samples {correlation:.2f}", fontsize=9)
        axes[-1][column].set_xlabel("s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(
        f"The ECG autoencoder: one held-out window of each site, {found.hidden_RLT.mean():.0%} hidden",
        fontsize=11,
    )
    arrays = {"real": found.real_RLT, "made": found.made_RLT, "hidden": found.hidden_RLT}
    return finish(figure, path, arrays)


def _lead(axis: Axes, real_T: np.ndarray, made_T: np.ndarray, *, hidden_T: np.ndarray, rate_hz: int) -> None:
    seconds = np.arange(len(real_T)) / rate_hz
    margin = 0.05 * float(np.ptp(real_T)) + 0.05
    low, high = float(real_T.min()) - margin, float(real_T.max()) + margin
    axis.fill_between(
        seconds, low, high, where=hidden_T, color="0.9", linewidth=0, step="mid", label="hidden"
    )
    axis.plot(seconds, real_T, color="black", linewidth=0.8, label="the window")
    axis.plot(seconds, made_T, color=WARM, linewidth=1.5, label="reconstructed")
    axis.set(xlim=(0.0, len(real_T) / rate_hz), ylim=(low, high), yticks=[])
    axis.spines[["top", "right", "left"]].set_visible(False)


def _correlation(real_LT: np.ndarray, made_LT: np.ndarray, hidden_LT: np.ndarray) -> float:
    real, made = real_LT[hidden_LT], made_LT[hidden_LT]
    return float(np.corrcoef(real, made)[0, 1]) if real.std() and made.std() else float("nan")
