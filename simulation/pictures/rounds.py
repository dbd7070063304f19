"""Losses and held-out metrics by round and site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from simulation.pictures.canvas import finish

COLOURS = tuple(f"C{index}" for index in range(10))


def picture_rounds(result: Mapping[str, Any], path: Path) -> str:
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
    return finish(figure, path, {})
