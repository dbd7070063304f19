"""A cine drawn from one ECG, marked as synthetic, and its files (SCIENCE section 4).

Comes in: what a generator takes of an ECG, and a seed. Goes out: marked frames, and a NIfTI file, an
animated GIF and a sheet as PNG. It holds nothing that the ECG does not, and no volume can be measured on it.

Legend: R rows (one here), F frames, Y rows, X columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from cardionets_core.data.cine import PIXELS, SPACING_MM
from cardionets_core.data.synthetic_mark import mark_cine
from cardionets_core.data.synthetic_nifti import DESCRIPTION, synthetic_nifti
from cardionets_core.data.synthetic_pictures import moving_gif, still_png
from cardionets_core.prediction.predictor import Predictor
from cardionets_core.tasks.drawing import DRAWING_OPTIONS, NOTICE, draw_cines, drawing_of

ENDINGS = ("nii.gz", "gif", "png")
FRAME_MS = 40
"""Of the GIF; the model knows no heart rate, so a beat is shown in any time."""
SHEET_FRAMES = 10
SHEET_COLUMNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticCine:
    """What was drawn for one ECG.

    Attributes:
        pixels: uint8 [F, Y, X], enlarged and marked.
        spacing_mm: side of a pixel.
        seed: of the noise.
        model_digest: of the model that drew it.
    """

    pixels: np.ndarray
    spacing_mm: float
    seed: int
    model_digest: str


def draw_cine(model: Predictor, condition_R: torch.Tensor, *, seed: int) -> SyntheticCine:
    """Draw a 4-chamber cine from an ECG's condition; equal seeds give equal cines.

    It is drawn as the model's study drew what it measured (guidance, temperature, steps, draws).

    Args:
        model: can do ``cine``.
        condition_R: of ``Predictor.condition``, one row.
        seed: of the noise.
    """
    cine_RFYX = draw_cines(
        model.modules,
        condition_R,
        settings=drawing_of({**DRAWING_OPTIONS, **model.stored.drawing}, model.preset),
        seeds=[seed],
        device=model.device,
    )
    marked = mark_cine(cine_RFYX[0].cpu().numpy())
    # Every preset shows the same field of view, that of 96 prepared pixels.
    side_mm = SPACING_MM * PIXELS / model.preset.cine_pixels
    return SyntheticCine(
        pixels=marked.pixels,
        spacing_mm=side_mm / marked.enlarged,
        seed=seed,
        model_digest=model.stored.model_digest,
    )


def cine_files(cine: SyntheticCine) -> dict[str, bytes]:
    """Ending of ``ENDINGS`` to the file's content."""
    return {"nii.gz": _nifti(cine), "gif": cine_gif(cine), "png": sheet_png(cine)}


def _nifti(cine: SyntheticCine) -> bytes:
    comment = f"{DESCRIPTION}. {NOTICE} Model {cine.model_digest}, seed {cine.seed}. Research use only."
    return synthetic_nifti(cine.pixels, spacing_mm=cine.spacing_mm, comment=comment)


def cine_gif(cine: SyntheticCine) -> bytes:
    """All frames, again and again, ``FRAME_MS`` each; the comment says what it is."""
    return moving_gif(cine.pixels, frame_ms=FRAME_MS)


def sheet_png(cine: SyntheticCine) -> bytes:
    """Up to ten frames at even distances in time on one sheet, each with its mark."""
    count = min(SHEET_FRAMES, len(cine.pixels))
    chosen = cine.pixels[[place * len(cine.pixels) // count for place in range(count)]]
    rows, columns = cine.pixels.shape[1:]
    wide = SHEET_COLUMNS if count == SHEET_FRAMES else math.ceil(count / 2)
    sheet = np.zeros((math.ceil(count / wide) * rows, wide * columns), dtype=np.uint8)
    for place, frame in enumerate(chosen):
        top, left = place // wide * rows, place % wide * columns
        sheet[top : top + rows, left : left + columns] = frame
    return still_png(sheet)
