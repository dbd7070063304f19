"""Held-out cines beside what the tokenizer, and the masked autoencoder, make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from simulation.pictures.canvas import finish, full_and_empty
from simulation.reconstruct import MaskedCines, TokenizedCines


def picture_tokenizer(found: TokenizedCines, path: Path) -> str:
    """One person a site: real, reconstructed and their difference, fullest and emptiest frame."""
    figure, axes = plt.subplots(
        len(found.sites),
        6,
        figsize=(12.5, 2.0 * len(found.sites) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    image = None
    for row, line in enumerate(axes):
        real, made = found.real_RFYX[row], np.clip(found.made_RFYX[row], -1.0, 1.0)
        for first, (frame, word) in zip(
            (0, 3), zip(full_and_empty(real), ("fullest", "emptiest"), strict=True), strict=True
        ):
            _show(line[first], real[frame], title=f"{word} frame" if row == 0 else "")
            _show(line[first + 1], made[frame], title="reconstructed" if row == 0 else "")
            image = line[first + 2].imshow(made[frame] - real[frame], cmap="RdBu_r", vmin=-0.5, vmax=0.5)
            line[first + 2].set(xticks=[], yticks=[])
            line[first + 2].set_title("difference" if row == 0 else "", fontsize=9)
        line[0].set_ylabel(
            f"{found.sites[row]}\nSSIM {found.ssim_R[row]:.2f}\n{found.psnr_R[row]:.1f} dB", fontsize=9
        )
    if image is not None:
        figure.colorbar(image, ax=axes[:, 5], fraction=0.08, label="made - real (pixels are -1 to 1)")
    figure.suptitle(
        "The tokenizer: a held-out 4-chamber cine of each site with any, from a latent drawn as in training",
        fontsize=11,
    )
    arrays = {"real": found.real_RFYX, "made": found.made_RFYX, "ssim": found.ssim_R, "psnr": found.psnr_R}
    return finish(figure, path, {name: value.astype(np.float32) for name, value in arrays.items()})


def picture_masked_cines(found: MaskedCines, path: Path) -> str:
    """One person a site: input, what the encoder saw, and the reconstruction, in two frames."""
    figure, axes = plt.subplots(
        len(found.sites), 6, figsize=(12, 2.0 * len(found.sites) + 0.6), squeeze=False, layout="constrained"
    )
    for row, line in enumerate(axes):
        real, made, hidden = found.real_RFYX[row], found.made_RFYX[row], found.hidden_RYX[row]
        for first, (frame, word) in zip(
            (0, 3), zip(full_and_empty(real), ("fullest", "emptiest"), strict=True), strict=True
        ):
            _show(line[first], real[frame], title=f"{word} frame" if row == 0 else "")
            _show(line[first + 1], _masked(real[frame], hidden), title="seen" if row == 0 else "")
            _show(line[first + 2], made[frame], title="reconstructed" if row == 0 else "")
        line[0].set_ylabel(found.sites[row], fontsize=9)
    share = found.hidden_RYX.mean()
    figure.suptitle(
        "The CMR autoencoder: a held-out 4-chamber cine of each site with any, "
        f"{share:.0%} hidden in all frames",
        fontsize=11,
    )
    arrays = {"real": found.real_RFYX, "made": found.made_RFYX, "hidden": found.hidden_RYX}
    return finish(figure, path, arrays)


def _masked(frame_YX: np.ndarray, hidden_YX: np.ndarray) -> np.ndarray:
    """RGB in 0..1: what is hidden is light blue, which no pixel of a cine is."""
    grey = np.repeat((np.clip(frame_YX, -1, 1)[..., None] + 1) / 2, 3, axis=2)
    return np.where(hidden_YX[..., None], np.array([0.78, 0.85, 0.93]), grey)


def _show(axis: Axes, image: np.ndarray, *, title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)
