"""NIfTI volumes become cines, with a segmentation where one lies beside them (step 2 of the walk).

Comes in: volumes. Goes out: stacks. Folder layouts and file names are not known here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from cardionets_core.data.masks import LabelMap, house_labels, phases_of_mask
from cardionets_core.data.readers.nifti_volume import Volume, frame_time_ms
from cardionets_core.data.records import CineStack, View
from cardionets_core.errors import RecordRefused

LONG_THIRD_AXIS = 20
"""A third axis of so many planes counts frames: 20 is the least that can be resampled in time, and a short
axis has at most 16 slices."""


def stack_of(
    volume: Volume, *, view: View | None, third_axis: Literal["frames", "slices"] | None = None
) -> CineStack:
    """One cine of one file.

    Args:
        volume: [F, Z, Y, X].
        view: of a single slice; several slices are a short axis whatever is declared.
        third_axis: of a 3-D file; None takes a long one for frames.
    """
    values, step, is_time = volume.values, volume.third_step, False
    if volume.axes == 3:
        counted = third_axis or ("frames" if values.shape[1] >= LONG_THIRD_AXIS else "slices")
        is_time = counted == "frames"
        values = values.transpose(1, 0, 2, 3) if is_time else values
    slices = values.shape[1]
    time_step = volume.third_step if is_time else volume.fourth_step
    return CineStack(
        pixels=values if slices > 1 else values[:, 0],
        spacing_mm=volume.spacing_mm,
        slice_spacing_mm=step if slices > 1 and 0 < step < np.inf else None,
        frame_ms=frame_time_ms(time_step, volume.time_unit),
        view="sax" if slices > 1 else view or "unknown",
    )


def labels_of(volume: Volume, *, label_map: LabelMap, like: np.ndarray) -> np.ndarray:
    """The house's labels of a segmentation, in the shape of the pixels that it belongs to.

    Raises:
        RecordRefused: ``cine-mask``: another shape than the image, or not of the declared label map.
    """
    if volume.values.size != like.size or volume.values.shape[2:] != like.shape[-2:]:
        raise RecordRefused("cine-mask", "the segmentation has another shape than the image")
    return house_labels(volume.values, label_map=label_map).reshape(like.shape)


def with_mask(stack: CineStack, mask: np.ndarray) -> CineStack:
    """The stack with its segmentation, which also tells ED and ES where nothing else does."""
    phases = phases_of_mask(mask) if stack.ed_frame is None else None
    if phases is None:
        return replace(stack, mask=mask)
    return replace(stack, mask=mask, ed_frame=phases[0], es_frame=phases[1], phase_source="given")
