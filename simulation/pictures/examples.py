"""A few held-out records as the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from cardionets_core.data.cohort import ECG_RATE_HZ, Cohort
from cardionets_core.data.records import LEADS
from cardionets_core.tasks.shapes import shape_of
from simulation.pictures.canvas import finish

EXAMPLE_FRAMES = 6
WINDOW_WORDS = {"standardised": ("standardised window", 8.0), "image": ("each lead within -1 and 1", 2.4)}
"""Kind of window to its title, and how far apart two leads are drawn."""
EXAMPLE_LEADS = ("II", "V1", "V5")


def picture_examples(cohorts: Mapping[str, Cohort], path: Path, *, preset: str) -> str | None:
    """One held-out recording a site, as the encoder gets it, with frames of its cine where there is one.

    None where nobody is held out.
    """
    shape = shape_of(preset)
    chosen: list[tuple[str, Cohort, int]] = []
    for site, cohort in sorted(cohorts.items()):
        for needs in (frozenset({"ecg", "cine"}), frozenset({"ecg", "sax"}), frozenset({"ecg"})):
            rows = cohort.rows(needs, "test", shape)
            if len(rows):
                chosen.append((site, cohort, int(rows[0])))
                break
    if not chosen:
        return None
    chosen.sort(key=lambda item: _shown(item[1], item[2])[0] < 0)
    columns = 2 + EXAMPLE_FRAMES
    figure, axes = plt.subplots(
        len(chosen), columns, figsize=(15, 2.1 * len(chosen)), squeeze=False, layout="constrained"
    )
    for row_axes, (site, cohort, row) in zip(axes, chosen, strict=True):
        grid = row_axes[0].get_gridspec()
        place = row_axes[0].get_subplotspec().rowspan.start
        for axis in row_axes[:2]:
            axis.remove()
        trace = figure.add_subplot(grid[place, :2])
        ecg = cohort.batch(np.array([row]), keys=frozenset({"ecg"}), shape=shape, window=1).ecg_BLT
        if ecg is not None:
            kind, apart = WINDOW_WORDS[shape.ecg_window]
            samples = ecg.shape[-1]
            seconds = np.arange(samples) * (shape.ecg_samples / ECG_RATE_HZ / samples)
            for place_of, lead in enumerate(EXAMPLE_LEADS):
                height = -apart * place_of
                trace.plot(seconds, ecg[0, LEADS.index(lead)].numpy() + height, linewidth=0.8, color="black")
                trace.text(
                    -0.02, height, lead, ha="right", va="center", transform=trace.transData, fontsize=8
                )
            trace.set(title=f"{site}: {kind}", yticks=[], xlabel="s")
        _plot_frames(row_axes[2:], cohort, row)
    return finish(figure, path, {})


def _plot_frames(axes: Any, cohort: Cohort, row: int) -> None:
    index, words = _shown(cohort, row)
    frames = np.linspace(0, 25, EXAMPLE_FRAMES).round().astype(int)
    for axis, frame in zip(axes, frames, strict=True):
        axis.axis("off")
        if index >= 0:
            axis.imshow(cohort.cines[index][frame], cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"frame {frame}{words}", fontsize=8)
    if index < 0:
        axes[0].text(0, 0.5, "no cine at this site", transform=axes[0].transAxes, fontsize=9)


def _shown(cohort: Cohort, row: int) -> tuple[int, str]:
    """The item of the row's 4-chamber cine, else of its short axis, else -1; and words for which."""
    for view, words in (("4ch", ""), ("sax", ", short axis")):
        if (item := int(cohort.items(view)[row])) >= 0:
            return item, words
    return -1, ""
