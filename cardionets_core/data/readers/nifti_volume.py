"""One NIfTI file, read within bounds (step 2 of the walk; FORMATS section 6).

Comes in: a ``.nii`` or ``.nii.gz`` file. Goes out: its values as [F, Z, Y, X] and what its header says of
space and time. The size comes from pixdim, never from the affine: copies with a unit affine are in
circulation, and their volumes would be 20 to 40 times too small. The header is judged before a pixel is
unpacked, and no more is unpacked than it promises; header extensions, which may claim any length, are
skipped.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from cardionets_core.data.readers.disk import check_size
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 400_000_000
MAXIMUM_VOXELS = 64_000_000
MAXIMUM_LABELS = 40_000_000
MAXIMUM_OFFSET_BYTES = 1_000_000
MAXIMUM_PLANES = 10_000
MAXIMUM_PIXELS = 4_194_304
"""Of one plane."""
SYNTHETIC = b"SYNTHETIC"
"""How the header of a drawn cine begins, see ``synthetic_nifti.py``."""
FRAME_LIMITS_MS = (5.0, 500.0)
_TYPES = frozenset({"uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"})
_MS_PER_UNIT = {"sec": 1000.0, "msec": 1.0, "usec": 0.001}
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The content of one file.

    Attributes:
        values: float32 [F, Z, Y, X], or uint8 for a segmentation; X is the first axis of the file.
        axes: dimensions that the file declares, 3 or 4; a 3-D file has its third axis as Z.
        spacing_mm: (between rows, between columns).
        third_step: pixdim of the third axis, in mm or, where that axis counts frames, in units of time.
        fourth_step: pixdim of the fourth axis; 0 for a 3-D file.
        time_unit: ``sec``, ``msec``, ``usec`` or ``unknown``.
    """

    values: np.ndarray
    axes: int
    spacing_mm: tuple[float, float]
    third_step: float
    fourth_step: float
    time_unit: str


def read_volume(path: Path, *, labels: bool = False, maximum_voxels: int = MAXIMUM_VOXELS) -> Volume:
    """Read one file.

    Args:
        path: the file.
        labels: it is a segmentation: whole numbers from 0 to 255, which are kept as bytes.
        maximum_voxels: that may be read.

    Raises:
        RecordRefused: ``cine-file-missing``, ``cine-too-large``, ``cine-unreadable``, ``cine-unsupported``,
            ``cine-frames`` (fewer than three axes), ``cine-spacing``, ``cine-mask`` (values that are no
            labels) or ``cine-synthetic``.
    """
    check_size(path, kind="cine", limit_bytes=MAXIMUM_BYTES)
    limit = min(maximum_voxels, MAXIMUM_LABELS) if labels else maximum_voxels
    try:
        with _opened(path) as stream:
            return _read(stream, labels=labels, maximum_voxels=limit)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except Exception as error:  # gzip, zlib, struct, nibabel and numpy raise many kinds on hostile bytes
        raise RecordRefused("cine-unreadable", "not a NIfTI image, or cut off", where=str(path)) from error


def frame_time_ms(step: float, unit: str) -> float | None:
    """Milliseconds between frames; None where the header gives no plausible number."""
    scale = _MS_PER_UNIT.get(unit, 1000.0 if step < 1.0 else 1.0)
    frame_ms = step * scale
    return frame_ms if FRAME_LIMITS_MS[0] <= frame_ms <= FRAME_LIMITS_MS[1] else None


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _read(stream: BinaryIO | gzip.GzipFile, *, labels: bool, maximum_voxels: int) -> Volume:
    start = stream.read(348)
    form = (
        nib.nifti2.Nifti2Header
        if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
        else nib.nifti1.Nifti1Header
    )
    start += stream.read(form.template_dtype.itemsize - len(start))
    header = form(start, check=False)
    magic = bytes(header["magic"])
    if magic.startswith((b"ni1", b"ni2")):
        raise RecordRefused("cine-unsupported", "the pixels lie in another file than the header")
    if not magic.startswith((b"n+1", b"n+2")):
        raise RecordRefused("cine-unreadable", "not a NIfTI image")
    if any(bytes(header[field]).startswith(SYNTHETIC) for field in ("descrip", "intent_name")):
        raise RecordRefused("cine-synthetic", "the header says SYNTHETIC")
    shape, axes = _shape([int(size) for size in header["dim"]], maximum_voxels=maximum_voxels)
    kind = header.get_data_dtype()
    if kind.name not in _TYPES:
        raise RecordRefused("cine-unsupported", f"pixels of type {kind.name}")
    spacing_mm, third_step = _spacing(header)
    # Behind the header stand 4 bytes that tell of extensions; some writers leave the offset at 0.
    offset = int(header["vox_offset"]) or form.template_dtype.itemsize + 4
    if not form.template_dtype.itemsize <= offset <= MAXIMUM_OFFSET_BYTES:
        raise RecordRefused("cine-unreadable", "the pixels begin at no plausible place")
    stream.read(offset - form.template_dtype.itemsize)
    slope, intercept = _scale(header)
    values = np.empty(shape, dtype=np.uint8 if labels else np.float32)
    for plane in values.reshape(-1, *shape[2:]):
        content = stream.read(plane.size * kind.itemsize)
        stored = np.frombuffer(content, dtype=kind, count=plane.size).reshape(plane.shape)
        if (slope, intercept) != (1.0, 0.0):
            stored = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        if labels and not ((stored >= 0) & (stored <= 255) & (stored == np.rint(stored))).all():
            raise RecordRefused("cine-mask", "the segmentation holds other values than labels")
        plane[...] = stored
    stream.read(1)  # at the end of a gzip stream its checksum is verified
    return Volume(
        values=values,
        axes=axes,
        spacing_mm=spacing_mm,
        third_step=third_step,
        fourth_step=abs(float(header["pixdim"][4])) if axes == 4 else 0.0,
        time_unit=header.get_xyzt_units()[1],
    )


def _shape(dim: list[int], *, maximum_voxels: int) -> tuple[tuple[int, int, int, int], int]:
    """([F, Z, Y, X], number of axes)."""
    count = dim[0]
    if not 1 <= count <= 7 or min(dim[1 : count + 1]) < 1 or any(size != 1 for size in dim[5 : count + 1]):
        raise RecordRefused("cine-unreadable", "the header's dimensions make no cine")
    if count < 3:
        raise RecordRefused("cine-frames", "the file holds a single image")
    frames = dim[4] if count > 3 else 1
    pixels, planes = dim[1] * dim[2], dim[3] * frames
    if pixels > MAXIMUM_PIXELS or planes > MAXIMUM_PLANES or pixels * planes > maximum_voxels:
        raise RecordRefused("cine-too-large", f"{dim[1]} x {dim[2]} x {dim[3]} x {frames} voxels")
    return (frames, dim[3], dim[2], dim[1]), min(count, 4)


def _spacing(header: nib.Nifti1Header) -> tuple[tuple[float, float], float]:
    """((row, column), third axis); the first two in mm, the third as well where its unit is one of length."""
    scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    column, row, third = (abs(float(step)) * scale for step in header["pixdim"][1:4])
    if not (0 < column < np.inf and 0 < row < np.inf):
        raise RecordRefused("cine-spacing", "pixdim is zero or no number")
    return (row, column), third


def _scale(header: nib.Nifti1Header) -> tuple[float, float]:
    """(slope, intercept); a slope of 0 or NaN means that the values are stored as they are."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if np.isfinite(intercept) else 0.0
