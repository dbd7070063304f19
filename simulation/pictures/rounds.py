"""Losses and held-out metrics by round and site, of the phases that are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cardionets_core.config.study import phase_title
from server.best_rounds import chance_of
from simulation.pictures.canvas import finish

COLOURS = tuple(f"C{index}" for index in range(10))
Entries = Sequence[Mapping[str, Any]]


def picture_rounds(result: Mapping[str, Any], path: Path) -> str:
    """Left: mean local loss by site. Right: the phase's held-out metric by site and pooled.

    A phase that is solved or only measures has no curves; it is drawn only where no phase has any.
    """
    phases = sorted({entry["phase"] for entry in result["rounds"]})
    by_phase = {phase: [e for e in result["rounds"] if e["phase"] == phase] for phase in phases}
    trained = {phase: entries for phase, entries in by_phase.items() if _has_losses(entries)}
    shown = list((trained or by_phase).values())
    sites = sorted({row["site"] for entry in result["rounds"] for row in entry["sites"]})
    colour = {site: COLOURS[i % len(COLOURS)] for i, site in enumerate(sites)}
    lines = max(len(shown), 1)
    figure, axes = plt.subplots(lines, 2, figsize=(10, 2.3 * lines), squeeze=False, layout="constrained")
    for (left, right), entries in zip(axes, shown, strict=False):
        primary = entries[0]["primary"]
        aside: Axes | None = None
        for site in sites:
            rows = [(e["round"], row) for e in entries for row in e["sites"] if row["site"] == site]
            losses = [(number, row["loss"]) for number, row in rows if row.get("loss") is not None]
            values = [
                (number, row["metrics"][primary]) for number, row in rows if primary in row.get("metrics", {})
            ]
            other = {row["role"] for _, row in rows if row.get("role")}
            if other:
                # Another loss, such as an ECG-only site's distillation, has a scale of its own.
                aside = aside or left.twinx()
                _curve(aside, losses, colour=colour[site], label=f"{site} (other loss, right)")
            else:
                _curve(left, losses, colour=colour[site], label=site)
            _curve(right, values, colour=colour[site], label=site)
        pooled = [(e["round"], e["pooled"][primary]) for e in entries if primary in e.get("pooled", {})]
        _curve(right, pooled, colour="black", label="pooled")
        chance = [chance_of(entry["pooled"], primary) for entry in entries if entry.get("pooled")]
        if chance and chance[-1] is not None:
            right.axhline(chance[-1], color="black", linestyle=":", linewidth=1.2, label="by chance")
        asked = result["study"]["phases"][entries[0]["phase"]]
        title = phase_title(asked["task"], asked.get("options"))
        empty = "no values" if asked.get("optimiser") else "solved in one step"
        rounds = entries[-1]["round"]
        _finish_axis(left, f"{title}: mean local loss", rounds=rounds, empty=empty, aside=aside)
        _finish_axis(right, f"{title}: held-out {primary}", rounds=rounds, empty=empty)
    return finish(figure, path, {})


def _has_losses(entries: Entries) -> bool:
    return any(row.get("loss") is not None for entry in entries for row in entry["sites"])


def _curve(axis: Axes, points: list[tuple[int, float]], *, colour: str, label: str) -> None:
    if points:
        width = 2.0 if label == "pooled" else 1.2
        axis.plot(
            *zip(*points, strict=True), "o-", markersize=3.5, color=colour, linewidth=width, label=label
        )


def _finish_axis(axis: Axes, title: str, *, rounds: int, empty: str, aside: Axes | None = None) -> None:
    axis.set(xlabel="round", xlim=(0.5, rounds + 0.5))
    axis.set_title(title, fontsize=10)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.has_data() or aside is not None:
        handles, labels = axis.get_legend_handles_labels()
        if aside is not None:
            aside.spines[["top"]].set_visible(False)
            more = aside.get_legend_handles_labels()
            handles, labels = handles + more[0], labels + more[1]
        axis.legend(handles, labels, fontsize=7)
    else:
        axis.text(0.5, 0.5, empty, ha="center", va="center", transform=axis.transAxes)
