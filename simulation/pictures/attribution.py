"""The ECG of one held-out person with what raised and lowered the predicted volume, lead by lead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from cardionets_core.data.cohort import ECG_RATE_HZ
from cardionets_core.data.records import LEADS
from cardionets_core.evaluation.attribution import lead_time_map
from simulation.interpret import Person, VolumeAttribution, volume_title
from simulation.pictures.canvas import OURS, WARM, finish

COLOURS = "RdBu_r"
COLUMN = 6
"""Leads in a column: limb leads on the left, chest leads on the right, as on paper."""
NOTE = (
    "Integrated gradients of the {task} head against a flat trace, added over each patch that the encoder "
    "reads. They tell of the model, not of the heart: what the\nencoder reads is normalised, so that a quiet "
    "stretch can weigh as much as a complex."
)


def picture_attribution(person: Person, found: VolumeAttribution, path: Path) -> str:
    """Traces in mV over what each patch adds in mL; on the right the sum of each lead."""
    map_LP = lead_time_map(torch.from_numpy(found.attribution_LT[None]), bins=found.patches)[0]
    # A single patch may outweigh all others; the colours end where the others can still be told apart.
    largest = max(float(np.percentile(np.abs(map_LP), 98)), np.finfo(float).tiny)
    norm = Normalize(-largest, largest)
    seconds = person.trace_LT.shape[1] / ECG_RATE_HZ
    figure = plt.figure(figsize=(13.5, 7.4), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=[4, 4, 1.5])
    traces = [figure.add_subplot(grid[0]), figure.add_subplot(grid[1])]
    for axis, first in zip(traces, (0, COLUMN), strict=True):
        leads = slice(first, first + COLUMN)
        _traces(axis, person.trace_LT[leads], map_LP[leads], names=LEADS[leads], norm=norm)
    _lead_sums(figure.add_subplot(grid[2]), map_LP.sum(axis=1))
    bar = figure.colorbar(
        ScalarMappable(norm, COLOURS),
        ax=traces,
        location="bottom",
        fraction=0.04,
        pad=0.02,
        aspect=60,
        extend="both",
    )
    bar.set_label(f"added to the prediction in each {seconds / found.patches:.2g} s, mL", fontsize=9)
    figure.suptitle(
        f"What the model reads {volume_title()} from: one held-out person of {person.cohort.site}\n"
        f"predicted {found.predicted_ml:.0f} mL, measured {found.measured_ml:.0f} mL; a flat trace gives "
        f"{found.baseline_ml:.0f} mL, to which the coloured parts add {map_LP.sum():+.0f} mL "
        f"(missed: {round(found.missed_ml, 1) + 0.0:.1f} mL)",
        fontsize=11,
    )
    figure.supxlabel(NOTE.format(task=found.task), fontsize=8, color="0.35", x=0.01, ha="left")
    arrays = {
        "attribution_ml": found.attribution_LT,
        "trace_mv": person.trace_LT,
        "map_ml": map_LP,
        "predicted_ml": np.array(found.predicted_ml),
        "baseline_ml": np.array(found.baseline_ml),
        "measured_ml": np.array(found.measured_ml),
    }
    return finish(figure, path, arrays)


def _traces(
    axis: Axes, trace_LT: np.ndarray, map_LP: np.ndarray, *, names: tuple[str, ...], norm: Normalize
) -> None:
    leads, samples = trace_LT.shape
    # Deep S waves may reach into the next lead, most traces do not.
    step = max(float(np.ptp(trace_LT, axis=1).max()) * 0.85, 0.8)
    seconds, end = np.arange(samples) / ECG_RATE_HZ, samples / ECG_RATE_HZ
    edges = np.linspace(0.0, end, map_LP.shape[1] + 1)
    for place in range(leads):
        base = -place * step
        rows = [base - step / 2, base + step / 2]
        axis.pcolormesh(
            edges, rows, map_LP[place : place + 1], cmap=COLOURS, norm=norm, alpha=0.8, rasterized=True
        )
        axis.plot(seconds, base + trace_LT[place] - np.median(trace_LT[place]), color="black", linewidth=0.9)
    bottom = -(leads - 0.5) * step - 0.45 * step
    axis.set_yticks([-place * step for place in range(leads)], names)
    axis.tick_params(axis="y", length=0)
    axis.set(xlim=(0.0, end), ylim=(bottom, 0.5 * step), xlabel="s")
    height = min(1.0, 0.4 * step)
    axis.plot(
        [end - 0.22, end - 0.22, end - 0.02], [bottom + height, bottom, bottom], color="black", linewidth=2
    )
    axis.text(end - 0.25, bottom + height / 2, f"{height:.1g} mV, 0.2 s", ha="right", va="center", fontsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _lead_sums(axis: Axes, sum_L: np.ndarray) -> None:
    axis.barh(LEADS, sum_L, height=0.65, color=[WARM if value > 0 else OURS for value in sum_L])
    axis.invert_yaxis()
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.set_title("sum of each lead, mL", fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
