"""Segmentations: one label map, its check, volumes and phases (step 2 of the walk; FORMATS section 2).

Comes in: a label image and the map that the site declares. Goes out: the house's labels. UK Biobank's tools
and ACDC number the ventricles in opposite order, and nothing in a file says which; but muscle encloses the
left ventricle, not the right one, so that a wrong declaration is found out.

Legend: F frames, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cardionets_core.errors import RecordRefused

LV, MYO, RV = 1, 2, 3
LabelMap = Literal["ukb", "acdc"]
LABEL_MAPS: dict[LabelMap, dict[int, int]] = {
    "ukb": {1: LV, 2: MYO, 3: RV},
    "acdc": {1: RV, 2: MYO, 3: LV},
}
"""Label of a file to label of the house; labels that are not named (atria) become background."""
MUSCLE_G_PER_ML = 1.05
CHECKED_PLANES = 100
"""Planes with a cavity that are looked at, evenly spread; twice as many at most."""
ENCLOSED_SHARE = 0.6
"""Share of the cavity's rim that is muscle; the rest is the valve plane, or a thin wall that was not drawn.
Over the twenty open short axes it is 0.98 to 1.00 for the left ventricle and 0.24 to 0.41 for the right
one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VentricleVolumes:
    """What one frame's masks hold.

    Attributes:
        lv_ml: left cavity.
        rv_ml: right cavity.
        muscle_ml: left ventricular muscle.
    """

    lv_ml: float
    rv_ml: float
    muscle_ml: float

    @property
    def muscle_g(self) -> float:
        """Mass of the muscle at 1.05 g/ml."""
        return self.muscle_ml * MUSCLE_G_PER_ML


def house_labels(labels: np.ndarray, *, label_map: LabelMap) -> np.ndarray:
    """Turn a file's labels into the house's.

    Args:
        labels: any shape, whole numbers.
        label_map: what they mean.

    Returns:
        Uint8 of the same shape: 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity.

    Raises:
        RecordRefused: ``cine-mask``: muscle does not enclose the left ventricle.
    """
    mask = np.zeros(labels.shape, dtype=np.uint8)
    for label, meaning in LABEL_MAPS[label_map].items():
        mask[labels == label] = meaning
    require_enclosure(mask)
    return mask


def require_enclosure(mask: np.ndarray) -> None:
    """Check that muscle encloses the left ventricle and not the right one.

    Args:
        mask: [..., Y, X] with the house's labels; a mask without a cavity says nothing and passes.

    Raises:
        RecordRefused: ``cine-mask``.
    """
    left, right = enclosed_share(mask, label=LV), enclosed_share(mask, label=RV)
    if left is None and right is not None and right > ENCLOSED_SHARE:
        raise RecordRefused("cine-mask", "muscle encloses the right ventricle and there is no left one")
    if left is not None and (left < ENCLOSED_SHARE or (right is not None and right > left)):
        raise RecordRefused("cine-mask", f"muscle is {100 * left:.0f} % of the left ventricle's rim")


def enclosed_share(mask: np.ndarray, *, label: int) -> float | None:
    """Share of the rim of a cavity, over its planes, that is muscle; None where there is no cavity."""
    planes = mask.reshape(-1, *mask.shape[-2:])
    planes = planes[(planes == label).any(axis=(1, 2))]
    planes = np.pad(planes[:: max(1, len(planes) // CHECKED_PLANES)], ((0, 0), (1, 1), (1, 1)))
    cavity = planes == label
    rim = np.zeros_like(cavity)
    for axis in (1, 2):
        for step in (-1, 1):
            rim |= np.roll(cavity, step, axis=axis)
    rim &= ~cavity
    return float((planes[rim] == MYO).mean()) if rim.any() else None


def ventricle_volumes(
    mask_ZYX: np.ndarray, *, spacing_mm: tuple[float, float], slice_spacing_mm: float
) -> VentricleVolumes:
    """Volumes of one frame: voxels times their size."""
    voxel_ml = spacing_mm[0] * spacing_mm[1] * slice_spacing_mm / 1000.0
    lv, myo, rv = (int((mask_ZYX == label).sum()) * voxel_ml for label in (LV, MYO, RV))
    return VentricleVolumes(lv_ml=lv, rv_ml=rv, muscle_ml=myo)


def ejection_fraction(end_diastolic_ml: float, end_systolic_ml: float) -> float:
    """Per cent of the end-diastolic volume that is ejected; NaN for an empty ventricle."""
    if end_diastolic_ml <= 0:
        return float("nan")
    return 100.0 * (end_diastolic_ml - end_systolic_ml) / end_diastolic_ml


def phases_of_mask(mask: np.ndarray) -> tuple[int, int] | None:
    """(ED, ES): the frames with the largest and the smallest left ventricle.

    Args:
        mask: [F, ..., Y, X]; frames without a segmentation are 0 throughout.

    Returns:
        None where fewer than two frames are segmented.
    """
    flat = mask.reshape(len(mask), -1)
    drawn = np.flatnonzero(flat.any(axis=1))
    cavity = (flat[drawn] == LV).sum(axis=1)
    if len(drawn) < 2 or cavity.max() == 0 or cavity.max() == cavity.min():
        return None
    return int(drawn[cavity.argmax()]), int(drawn[cavity.argmin()])
