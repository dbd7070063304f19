"""A metric over epsilon: one line a curve, with the range over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from simulation.pictures.canvas import OTHER, OURS, WARM, finish

COLOURS = (OURS, WARM, "#4b8b3b", OTHER)


def picture_utility(content: Mapping[str, Any], path: Path) -> str:
    """Draw all curves of ``utility.json``; without privacy stands at the right, behind a gap."""
    rows = content["points"]
    finite = sorted({row["epsilon"] for row in rows if row["epsilon"] is not None})
    places: dict[float | None, float] = {epsilon: float(np.log(epsilon)) for epsilon in finite}
    places[None] = max(places.values(), default=0.0) + 1.2
    figure, axis = plt.subplots(figsize=(8.6, 5.4), layout="constrained")
    for curve, colour in zip(dict.fromkeys(row["curve"] for row in rows), COLOURS, strict=False):
        found = sorted((row for row in rows if row["curve"] == curve), key=lambda r: places[r["epsilon"]])
        place = [places[row["epsilon"]] for row in found]
        mean = np.array([row["mean"] for row in found])
        spread = [
            mean - [row["lowest"] for row in found],
            np.array([row["highest"] for row in found]) - mean,
        ]
        people = found[0]["training_patients"]
        words = f"{curve}: {min(people)} to {max(people)} training patients" if people else curve
        axis.errorbar(place, mean, yerr=spread, color=colour, marker="o", capsize=3, label=words)
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":", label="chance")
    axis.set_xticks(list(places.values()), ["none" if e is None else f"{e:g}" for e in places])
    axis.set(xlabel=f"epsilon of the study at each site, delta {content['delta']:g}", ylabel="held-out AUROC")
    axis.set_title("Screening of five diseases; bars are the range over seeds", fontsize=10)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    return finish(figure, path, {"mean": np.array([row["mean"] for row in rows])})
