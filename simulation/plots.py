"""Pictures of a run, as PNG: curves by round and site, the arms, and a few records as the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from cardionets_core.data.cohort import Cohort
from cardionets_core.data.records import LEADS
from cardionets_core.tasks.shapes import shape_of

EXAMPLE_FRAMES = 6
EXAMPLE_LEADS = ("II", "V1", "V5")
COLOURS = tuple(f"C{index}" for index in range(10))


def plot_run(
    result: Mapping[str, Any], cohorts: Mapping[str, Cohort], *, folder: Path, preset: str
) -> list[str]:
    """Draw everything that the result allows.

    Args:
        result: content of ``result.json``.
        cohorts: by site; the example records come from their test patients.
        folder: where the pictures go; made if absent.
        preset: of the study.

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
    arms = [row for row in comparison if row["mean"] is not None]
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(arms) + 1.2), layout="constrained")
    for place, row in enumerate(reversed(arms)):
        colour = COLOURS[0] if row["arm"] == "federated" else "0.5"
        axis.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=2)
        axis.plot(row["mean"], place, "o", color=colour)
    axis.set_yticks(range(len(arms)), [row["arm"] for row in reversed(arms)])
    axis.set(
        xlabel="mean R² over phenotypes, held-out patients (95 % interval)",
        title=f"n = {arms[0]['n']} patients",
        ylim=(-0.6, len(arms) - 0.4),
    )
    axis.grid(axis="x", alpha=0.3)
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
