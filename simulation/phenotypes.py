"""What a reading centre would report of a cine: fields 24100 to 24181 measured on the masks.

Comes in: a ``DrawnCine`` and the heart rate. Goes out: field number to value, only those fields that one
4-chamber view can give. The latent heart is not looked at.

* Length of a shape: its second moment along the heart's axis, scaled by the constant of the model shape (half
  an ellipse, or an ellipse cut at ``ATRIAL_CUT``); this is finer than counting pixels from end to end.
* Volume: area-length, ``8 A^2 / (3 pi L)``; times ``CRESCENT`` for the right ventricle.
* Mass: the shell between the outlines of cavity + wall and of the cavity, each by area-length, x 1.05 g/ml.
* Wall thickness: difference of the two mean radii ``2 A / (pi L)`` at end diastole.
* Longitudinal strain: relative change of the left ventricle's length from its longest to its shortest.

Legend: F frames, Y rows, X columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from simulation.anatomy import ATRIAL_CUT, CRESCENT, DENSITY_G_PER_ML
from simulation.cine import LA, LV, MYO, RA, RV, DrawnCine

MISSING_SHARE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Area in mm2, length in mm and area-length volume in ml of a structure, each float64 [F]."""

    area: np.ndarray
    length: np.ndarray

    @property
    def volume_ml(self) -> np.ndarray:
        return 8.0 * np.square(self.area) / (3.0 * np.pi * np.maximum(self.length, 1e-6)) / 1000.0


def measure(cine: DrawnCine, *, heart_rate_bpm: float) -> dict[int, float]:
    """Measure every field that the masks can give.

    Args:
        cine: a drawn cine.
        heart_rate_bpm: for the cardiac output.

    Returns:
        Field number to value in the field's unit: ml, %, l/min, g, mm.
    """
    lv = _shape(cine, (LV,), cut=0.0)
    outer = _shape(cine, (LV, MYO), cut=0.0)
    rv_ml = CRESCENT * _shape(cine, (RV,), cut=0.0).volume_ml
    la_ml = _shape(cine, (LA,), cut=ATRIAL_CUT).volume_ml
    ra_ml = _shape(cine, (RA,), cut=ATRIAL_CUT).volume_ml
    lv_ml = lv.volume_ml
    first = int(lv_ml.argmax())
    stroke = float(lv_ml.max() - lv_ml.min())
    values = {
        24100: float(lv_ml.max()),
        24101: float(lv_ml.min()),
        24102: stroke,
        24103: 100.0 * stroke / float(lv_ml.max()),
        24104: stroke * heart_rate_bpm / 1000.0,
        24105: DENSITY_G_PER_ML * float(outer.volume_ml[first] - lv_ml[first]),
        24140: 2.0
        / np.pi
        * float(outer.area[first] / outer.length[first] - lv.area[first] / lv.length[first]),
        24181: 100.0 * float(lv.length.min() / lv.length.max() - 1.0),
    }
    for field, volume in ((24106, rv_ml), (24110, la_ml), (24114, ra_ml)):
        most, least = float(volume.max()), float(volume.min())
        values |= {
            field: most,
            field + 1: least,
            field + 2: most - least,
            field + 3: 100.0 * (1.0 - least / most),
        }
    return dict(sorted(values.items()))


def with_gaps(
    values: dict[int, float], rng: np.random.Generator, *, share: float = MISSING_SHARE
) -> dict[int, float]:
    """Leave a share of the values out, as every real table does; rounded to four places."""
    keep = rng.random(len(values)) >= share
    return {field: round(value, 4) for (field, value), kept in zip(values.items(), keep, strict=True) if kept}


def _shape(cine: DrawnCine, labels: tuple[int, ...], *, cut: float) -> _Shape:
    spacing = cine.stack.spacing_mm[0]
    inside = np.isin(cine.masks, labels)
    rows, columns = cine.masks.shape[1:]
    along = (
        cine.axis_yx[0] * np.arange(rows, dtype=np.float64)[:, None]
        + cine.axis_yx[1] * np.arange(columns, dtype=np.float64)[None, :]
    ) * spacing
    flat = inside.reshape(len(inside), -1).astype(np.float64)
    along = along.ravel() - along.mean()
    count = np.maximum(flat.sum(axis=1), 1.0)
    mean, square = (np.einsum("fp,p->f", flat, values) / count for values in (along, np.square(along)))
    spread = square - np.square(mean)
    return _Shape(
        area=count * spacing**2, length=np.sqrt(np.maximum(spread, 1e-9)) / _spread_of_unit_length(cut)
    )


@lru_cache(maxsize=8)
def _spread_of_unit_length(cut: float) -> float:
    """SD along the axis of an ellipse cut at ``cut`` (0: half an ellipse), over its length along the axis."""
    # The half ellipse of a ventricle runs from the cut (0) to the apex (1), which is the same as -1 to 0.
    place = np.linspace(-1.0, cut, 20_001)
    width = np.sqrt(1.0 - np.square(place))
    mean = float((width * place).sum() / width.sum())
    spread = float((width * np.square(place - mean)).sum() / width.sum())
    return float(np.sqrt(spread)) / (1.0 + cut)
