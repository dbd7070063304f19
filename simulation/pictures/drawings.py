"""Real and drawn cines of held-out people side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt

from simulation.generated import KINDS, DrawnCases
from simulation.pictures.canvas import finish, full_and_empty


def picture_drawings(cases: Sequence[DrawnCases], path: Path, *, most: int = 6) -> str:
    """Real and drawn cines of a few patients side by side, at the fullest and emptiest real frame."""
    chosen = [(case, place) for place in range(most) for case in cases if place < len(case.real_RFYX)][:most]
    rows = ("real", *KINDS)
    figure, axes = plt.subplots(
        len(rows), 2 * len(chosen), figsize=(2.2 * len(chosen), 5.4), squeeze=False, layout="constrained"
    )
    for column, (case, place) in enumerate(chosen):
        real_FYX = case.real_RFYX[place]
        frames = full_and_empty(real_FYX.numpy())
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
    return finish(figure, path, {})
