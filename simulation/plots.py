"""Pictures of a run, as PNG: curves by round and site, the arms, and a few records as the model sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from cardionets_core.data.cohort import Cohort
from cardionets_core.data.records import LEADS
from cardionets_core.tasks.shapes import shape_of
from simulation.generated import KINDS, DrawnCases

EXAMPLE_FRAMES = 6
EXAMPLE_LEADS = ("II", "V1", "V5")
METRIC_WORDS = {"r2_mean": "mean R² over phenotypes", "auroc_mean": "mean AUROC over diseases"}
COLOURS = tuple(f"C{index}" for index in range(10))


def plot_run(
    result: Mapping[str, Any],
    cohorts: Mapping[str, Cohort],
    *,
    folder: Path,
    preset: str,
    cases: Sequence[DrawnCases] = (),
) -> list[str]:
    """Draw everything that the result allows.

    Args:
        result: content of ``result.json``.
        cohorts: by site; the example records come from their test patients.
        folder: where the pictures go; made if absent.
        preset: of the study.
        cases: held-out patients with the cines that were drawn for them.

    Returns:
        Names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ["rounds.png"]
    _plot_rounds(result, folder / "rounds.png")
    if any(row["mean"] is not None for row in result["comparison"]):
        _plot_arms(result["comparison"], folder / "comparison.png")
        names.append("comparison.png")
    if _plot_examples(cohorts, folder / "examples.png", preset=preset):
        names.append("examples.png")
    if cases:
        _plot_drawings(cases, folder / "drawn_cines.png")
        names.append("drawn_cines.png")
    return names


def _plot_rounds(result: Mapping[str, Any], path: Path) -> None:
    """Left: mean local loss by site. Right: the phase's held-out metric by site and pooled."""
    phases = sorted({entry["phase"] for entry in result["rounds"]})
    sites = sorted({row["site"] for entry in result["rounds"] for row in entry["sites"]})
    colour = {site: COLOURS[i % len(COLOURS)] for i, site in enumerate(sites)}
    figure, axes = plt.subplots(
        max(len(phases), 1), 2, figsize=(10, 2.8 * max(len(phases), 1)), squeeze=False, layout="constrained"
    )
    for row_axes, phase in zip(axes, phases, strict=False):
        entries = [entry for entry in result["rounds"] if entry["phase"] == phase]
        primary = entries[0]["primary"]
        for site in sites:
            loss = [
                (e["round"], r["loss"])
                for e in entries
                for r in e["sites"]
                if r["site"] == site and "loss" in r
            ]
            metric = [
                (e["round"], r["metrics"][primary])
                for e in entries
                for r in e["sites"]
                if r["site"] == site and primary in r.get("metrics", {})
            ]
            for axis, points in zip(row_axes, (loss, metric), strict=True):
                if points:
                    axis.plot(
                        *zip(*points, strict=True), marker="o", markersize=3, color=colour[site], label=site
                    )
        pooled = [(e["round"], e["pooled"][primary]) for e in entries if primary in e.get("pooled", {})]
        if pooled:
            row_axes[1].plot(*zip(*pooled, strict=True), color="black", linewidth=2, label="pooled")
        row_axes[0].set(title=f"{entries[0]['task']}: mean local loss", xlabel="round")
        row_axes[1].set(title=f"{entries[0]['task']}: held-out {primary}", xlabel="round")
        for axis in row_axes:
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.3)
            if axis.has_data():
                axis.legend(fontsize=7)
            else:
                axis.text(0.5, 0.5, "solved in one step", ha="center", va="center", transform=axis.transAxes)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_arms(comparison: list[dict[str, Any]], path: Path) -> None:
    """One panel a metric and population; the federation in colour."""
    kinds = list(dict.fromkeys((row["task"], row["metric"], row["population"]) for row in comparison))
    arms = list(dict.fromkeys(row["arm"] for row in comparison))
    columns = min(len(kinds), 2)
    rows = -(-len(kinds) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(6.5 * columns, (0.38 * len(arms) + 1.3) * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis, kind in zip(axes.flat, kinds, strict=False):
        found = [row for row in comparison if (row["task"], row["metric"], row["population"]) == kind]
        for row in found:
            if row["mean"] is None:
                continue
            place = len(arms) - 1 - arms.index(row["arm"])
            colour = COLOURS[0] if row["arm"] == "federated" else "0.5"
            axis.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=2)
            axis.plot(row["mean"], place, "o", color=colour)
        axis.set_yticks(range(len(arms)), list(reversed(arms)))
        axis.set(
            xlabel=f"{kind[0]}: {METRIC_WORDS.get(kind[1], kind[1])} (95 % interval)",
            title=f"patients of {kind[2]}, n = {max(row['n'] for row in found)}",
            ylim=(-0.6, len(arms) - 0.4),
        )
        axis.grid(axis="x", alpha=0.3)
    for axis in list(axes.flat)[len(kinds) :]:
        axis.remove()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_examples(cohorts: Mapping[str, Cohort], path: Path, *, preset: str) -> bool:
    """One held-out recording a site, as the encoder gets it, with frames of its cine where there is one."""
    shape = shape_of(preset)
    chosen: list[tuple[str, Cohort, int]] = []
    for site, cohort in sorted(cohorts.items()):
        for needs in (frozenset({"ecg", "cine"}), frozenset({"ecg"})):
            rows = cohort.rows(needs, "test", shape)
            if len(rows):
                chosen.append((site, cohort, int(rows[0])))
                break
    if not chosen:
        return False
    chosen.sort(key=lambda item: item[1].row_cine[item[2]] < 0)
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
            seconds = np.arange(shape.ecg_samples) / 250.0
            for height, lead in enumerate(EXAMPLE_LEADS):
                trace.plot(
                    seconds, ecg[0, LEADS.index(lead)].numpy() - 8 * height, linewidth=0.8, color="black"
                )
                trace.text(
                    -0.02, -8 * height, lead, ha="right", va="center", transform=trace.transData, fontsize=8
                )
        trace.set(title=f"{site}: standardised window", yticks=[], xlabel="s")
        _plot_frames(row_axes[2:], cohort, row)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _plot_frames(axes: Any, cohort: Cohort, row: int) -> None:
    index = int(cohort.row_cine[row])
    frames = np.linspace(0, 25, EXAMPLE_FRAMES).round().astype(int)
    for axis, frame in zip(axes, frames, strict=True):
        axis.axis("off")
        if index >= 0:
            axis.imshow(cohort.cines[index][frame], cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"frame {frame}", fontsize=8)
    if index < 0:
        axes[0].text(0, 0.5, "no cine at this site", transform=axes[0].transAxes, fontsize=9)


def _plot_drawings(cases: Sequence[DrawnCases], path: Path, *, most: int = 6) -> None:
    """Real and drawn cines of a few patients side by side, at the fullest and emptiest real frame."""
    chosen = [(case, place) for place in range(most) for case in cases if place < len(case.real_RFYX)][:most]
    rows = ("real", *KINDS)
    figure, axes = plt.subplots(
        len(rows), 2 * len(chosen), figsize=(2.2 * len(chosen), 5.4), squeeze=False, layout="constrained"
    )
    for column, (case, place) in enumerate(chosen):
        real_FYX = case.real_RFYX[place]
        # The brighter centre is the larger pool of blood: a plain guide to the two frames, not a measurement.
        middle = real_FYX.shape[-1] // 4
        bright_F = real_FYX[:, middle:-middle, middle:-middle].mean(dim=(1, 2))
        frames = (int(bright_F.argmax()), int(bright_F.argmin()))
        for line, kind in enumerate(rows):
            cine_FYX = real_FYX if kind == "real" else case.made[kind][place]
            for offset, (frame, word) in enumerate(zip(frames, ("full", "empty"), strict=True)):
                axis = axes[line][2 * column + offset]
                axis.imshow(cine_FYX[frame].numpy(), cmap="gray", vmin=-1, vmax=1)
                axis.set(xticks=[], yticks=[])
                if line == 0:
                    axis.set_title(f"{case.site}\n{word}", fontsize=7)
                if column == offset == 0:
                    axis.set_ylabel(kind if kind == "real" else f"synthetic:\n{kind}", fontsize=8)
    figure.suptitle("Synthetic cines are drawn from an ECG; no volume can be read off them", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)
