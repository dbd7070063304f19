"""A synthetic cine as a NIfTI file that says so in its header (FORMATS section 6).

Comes in: grey frames that bear their mark in the pixels. Goes out: bytes. Written are the size of a pixel
and nothing else of space: a drawn heart was never in a scanner. The time between frames is not known.
"""

from __future__ import annotations

import gzip

import nibabel
import numpy as np

DESCRIPTION = "SYNTHETIC - CardioNets - not an acquisition"
NAME = "SYNTHETIC"
_COMMENT = 6
"""Code of a header extension of plain text."""


def synthetic_nifti(pixels_FYX: np.ndarray, *, spacing_mm: float, comment: str) -> bytes:
    """A gzipped NIfTI-1 file; equal arguments give equal bytes.

    Args:
        pixels_FYX: uint8, frames in the order of time.
        spacing_mm: side of a pixel.
        comment: what else a reader of the header should know.

    Returns:
        A file of shape (X, Y, 1, F) with the pixel size in ``pixdim``, 1 in an unknown unit for the frames,
        ``DESCRIPTION`` in ``descrip``, and ``NAME`` in ``intent_name`` and ``aux_file``.
    """
    array_XY1F = np.ascontiguousarray(pixels_FYX.transpose(2, 1, 0)[:, :, None, :])
    # Turned as the first row of a picture is drawn at the top; no position is claimed.
    image = nibabel.nifti1.Nifti1Image(array_XY1F, np.diag([-spacing_mm, -spacing_mm, 1.0, 1.0]))
    header = image.header
    header.set_zooms((spacing_mm, spacing_mm, 1.0, 1.0))
    header.set_xyzt_units("mm", "unknown")
    header.set_intent("none", name=NAME)
    header["descrip"] = DESCRIPTION.encode()
    header["aux_file"] = NAME.encode()
    header["cal_max"] = 255.0
    header.extensions.append(nibabel.nifti1.Nifti1Extension(_COMMENT, comment.encode()))
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
