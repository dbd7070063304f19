"""Which stretch of the ECG lies near which place of the person's own cine, in the common space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from cardionets_core.data.cohort import ECG_RATE_HZ
from cardionets_core.data.records import LEADS
from simulation.interpret import Person, TokenSimilarity
from simulation.pictures.canvas import WARM, finish, full_and_empty

NOTE = (
    "Cosine in the common space of the alignment, which trains whole recordings: their parts are not trained "
    "to match, and such a map locates no disease."
)


def picture_similarity(person: Person, found: TokenSimilarity, path: Path) -> str:
    """Left: each ECG patch and its nearest place. Right: the cine, and where the most similar one points."""
    best_LP = found.cosine_LPN.max(axis=2)
    lead, patch = (int(each) for each in np.unravel_index(best_LP.argmax(), best_LP.shape))
    token = found.cosine_LPN[lead, patch].reshape(found.side, found.side)
    mean = found.cosine_LPN.mean(axis=(0, 1)).reshape(found.side, found.side)
    largest = float(np.abs([token, mean]).max())
    full, empty = full_and_empty(found.cine_FYX)
    figure = plt.figure(figsize=(12.5, 7.4), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=[1.15, 1])
    map_grid = halves[0].subgridspec(2, 1, height_ratios=[2.6, 1])
    _patches(figure.add_subplot(map_grid[0]), best_LP, person, lead=lead, patch=patch)
    _trace(figure.add_subplot(map_grid[1]), person, lead=lead, patch=patch, patches=best_LP.shape[1])
    cine_grid = halves[1].subgridspec(2, 2, height_ratios=[1, 1.18])
    _frame(figure.add_subplot(cine_grid[0, 0]), found, full, title="fullest frame")
    _frame(figure.add_subplot(cine_grid[0, 1]), found, empty, title="emptiest frame")
    lower = [figure.add_subplot(cine_grid[1, column]) for column in range(2)]
    _frame(lower[0], found, full, title=f"near {LEADS[lead]}, {_span(person, patch, best_LP.shape[1])}")
    _heat(lower[0], found, token, largest)
    _frame(lower[1], found, full, title="near all ECG patches (mean)")
    image = _heat(lower[1], found, mean, largest)
    bar = figure.colorbar(image, ax=lower, location="bottom", fraction=0.06, pad=0.02, aspect=40)
    bar.set_label("cosine of the ECG patch and each patch of the cine", fontsize=9)
    figure.suptitle(
        f"ECG patches against places of the person's own cine: one held-out person of {person.cohort.site}",
        fontsize=11,
    )
    figure.supxlabel(NOTE, fontsize=8, color="0.35", x=0.01, ha="left")
    arrays = {
        "cosine_LPN": found.cosine_LPN.astype(np.float32),
        "cine_FYX": found.cine_FYX.astype(np.float32),
        "trace_mv": person.trace_LT,
        "most_similar": np.array([lead, patch]),
    }
    return finish(figure, path, arrays)


def _seconds(person: Person) -> float:
    return person.trace_LT.shape[1] / ECG_RATE_HZ


def _span(person: Person, patch: int, patches: int) -> str:
    width = _seconds(person) / patches
    return f"{patch * width:.1f} to {(patch + 1) * width:.1f} s"


def _patches(axis: Axes, best_LP: np.ndarray, person: Person, *, lead: int, patch: int) -> None:
    width = _seconds(person) / best_LP.shape[1]
    image = axis.imshow(
        best_LP,
        aspect="auto",
        cmap="viridis",
        interpolation="nearest",
        extent=(0.0, _seconds(person), len(best_LP) - 0.5, -0.5),
    )
    axis.add_patch(
        Rectangle((patch * width, lead - 0.5), width, 1, fill=False, edgecolor=WARM, linewidth=2.5)
    )
    axis.set_yticks(range(len(LEADS)), LEADS)
    axis.set_xlabel("s")
    axis.set_title("each ECG patch: cosine to the nearest place of the cine", fontsize=9)
    axis.figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02)


def _trace(axis: Axes, person: Person, *, lead: int, patch: int, patches: int) -> None:
    samples = person.trace_LT.shape[1]
    width = _seconds(person) / patches
    axis.plot(np.arange(samples) / ECG_RATE_HZ, person.trace_LT[lead], color="black", linewidth=0.9)
    axis.axvspan(patch * width, (patch + 1) * width, color=WARM, alpha=0.25)
    axis.set(xlim=(0.0, _seconds(person)), xlabel="s", ylabel=f"{LEADS[lead]}, mV")
    axis.spines[["top", "right"]].set_visible(False)


def _frame(axis: Axes, found: TokenSimilarity, frame: int, *, title: str) -> None:
    axis.imshow(found.cine_FYX[frame], cmap="gray", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)


def _heat(axis: Axes, found: TokenSimilarity, heat_YX: np.ndarray, largest: float) -> AxesImage:
    end = found.cine_FYX.shape[-1] - 0.5
    return axis.imshow(
        heat_YX,
        cmap="RdBu_r",
        vmin=-largest,
        vmax=largest,
        alpha=0.5,
        extent=(-0.5, end, end, -0.5),
        interpolation="nearest",
    )
