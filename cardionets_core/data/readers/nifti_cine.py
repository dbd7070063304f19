"""NIfTI cines of one slice: (X, Y, 1, F) or (X, Y, F) (step 2 of the walk; FORMATS section 6).

Spacing comes from pixdim, never from the affine: copies with a unit affine are in circulation. The header is
checked before any pixel is unpacked, so a small file cannot ask for much memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.disk import check_size
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 200_000_000
MAXIMUM_VOXELS = 40_000_000
_MS_PER_UNIT = {"sec": 1000.0, "msec": 1.0, "usec": 0.001}


def read_nifti_cine(path: Path) -> CineStack:
    """Read one cine.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.

    Returns:
        Frames as [F, Y, X]; X is the first axis of the file.

    Raises:
        RecordRefused: ``cine-file-missing``, ``cine-too-large``, ``cine-unreadable``, ``cine-no-view``
            (several slices) or ``cine-frames`` (a still image).
    """
    check_size(path, kind="cine", limit_bytes=MAXIMUM_BYTES)
    try:
        image: Any = nib.load(path)
        shape = tuple(int(size) for size in image.shape)
        zooms = tuple(float(zoom) for zoom in image.header.get_zooms())
        time_unit = image.header.get_xyzt_units()[1]
    except Exception as error:  # nibabel raises many kinds on hostile bytes
        raise RecordRefused("cine-unreadable", "not a NIfTI image", where=str(path)) from error
    if len(shape) == 4 and shape[2] != 1:
        raise RecordRefused("cine-no-view", "the file holds several slices", where=str(path))
    if len(shape) not in (3, 4):
        raise RecordRefused("cine-frames", "the file holds no series of frames", where=str(path))
    if min(shape) < 1 or int(np.prod(shape, dtype=np.float64)) > MAXIMUM_VOXELS:
        raise RecordRefused("cine-too-large", f"{shape} voxels", where=str(path))
    try:
        data = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:  # gzip, zlib, OSError, ValueError: all mean the same here
        raise RecordRefused("cine-unreadable", "the pixels are cut off or torn", where=str(path)) from error
    frames = data.reshape(shape[0], shape[1], shape[-1])
    return CineStack(
        pixels=np.ascontiguousarray(frames.transpose(2, 1, 0)),
        spacing_mm=(zooms[1], zooms[0]),
        frame_ms=_frame_ms(zooms[len(shape) - 1], time_unit),
    )


def _frame_ms(step: float, unit: str) -> float | None:
    """Milliseconds between frames; None where the header gives no plausible number."""
    scale = _MS_PER_UNIT.get(unit, 1000.0 if step < 1.0 else 1.0)
    frame_ms = step * scale
    return frame_ms if 1.0 <= frame_ms <= 1000.0 else None


READER = Reader(
    name="nifti",
    kind="cine",
    title="NIfTI",
    suffixes=(".nii", ".nii.gz"),
    recognises=lambda path, head: path.name.lower().endswith((".nii", ".nii.gz")),
    read=lambda path, options: (read_nifti_cine(path),),
)
