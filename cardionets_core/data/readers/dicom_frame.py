"""One DICOM file as one frame of a cine (step 2 of the walk).

Comes in: the bytes of a file. Goes out: the few tags that sorting needs, and its pixels when asked for.
Names, dates and identifiers are never parsed into anything that lives on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cardionets_core.errors import RecordRefused

MAXIMUM_PIXELS = 1_048_576
_TAGS = ["SeriesDescription", "SeriesNumber", "SeriesInstanceUID", "InstanceNumber", "TriggerTime",
         "CardiacNumberOfImages", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "Rows",
         "Columns", "BitsAllocated", "PixelRepresentation", "SamplesPerPixel", "NumberOfFrames",
         "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "BitsStored", "HighBit",
         "PlanarConfiguration", "PixelData"]  # fmt: skip
_PLAIN = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFrame:
    """One frame before its pixels are looked at.

    Attributes:
        series: SeriesDescription.
        series_number: SeriesNumber, 0 where absent.
        series_key: tells series with one number apart; stays in this process.
        instance: InstanceNumber.
        trigger_ms: TriggerTime, or the instance number where absent.
        frames_promised: CardiacNumberOfImages, 0 where absent.
        spacing_mm: (between rows, between columns), or None.
        plane: orientation and position, rounded: equal for frames of one slice.
        shape: (rows, columns).
        pixels: gives float32 [Y, X]; raises RecordRefused ``cine-unreadable``.
    """

    series: str
    series_number: int
    series_key: str
    instance: int
    trigger_ms: float
    frames_promised: int
    spacing_mm: tuple[float, float] | None
    plane: tuple[float, ...]
    shape: tuple[int, int]
    pixels: Callable[[], np.ndarray]


def read_frame(stream: BinaryIO) -> DicomFrame | None:
    """Parse one file; None where it is no single-frame grey image.

    Raises:
        RecordRefused: ``cine-unreadable``, the tags are torn.
    """
    try:
        dataset = pydicom.dcmread(stream, specific_tags=_TAGS)
        return _frame(dataset)
    except RecordRefused:
        raise
    except Exception as error:  # pydicom raises many kinds on hostile bytes
        raise RecordRefused("cine-unreadable", "a DICOM file is torn") from error


def _frame(dataset: Dataset) -> DicomFrame | None:
    if "PixelData" not in dataset or int(dataset.get("NumberOfFrames") or 1) != 1:
        return None
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not 1 <= rows * columns <= MAXIMUM_PIXELS or int(dataset.get("SamplesPerPixel") or 1) != 1:
        return None
    instance = int(dataset.get("InstanceNumber") or 0)
    trigger = dataset.get("TriggerTime")
    spacing = [float(value) for value in dataset.get("PixelSpacing") or ()]
    position = [*(dataset.get("ImageOrientationPatient") or ()), *(dataset.get("ImagePositionPatient") or ())]
    return DicomFrame(
        series=str(dataset.get("SeriesDescription") or "").strip(),
        series_number=int(dataset.get("SeriesNumber") or 0),
        series_key=str(dataset.get("SeriesInstanceUID") or ""),
        instance=instance,
        trigger_ms=float(trigger) if trigger not in (None, "") else float(instance),
        frames_promised=int(dataset.get("CardiacNumberOfImages") or 0),
        spacing_mm=(spacing[0], spacing[1]) if len(spacing) == 2 else None,
        plane=tuple(round(float(value), 1) for value in position),
        shape=(rows, columns),
        pixels=lambda: _pixels(dataset, rows=rows, columns=columns),
    )


def _pixels(dataset: Dataset, *, rows: int, columns: int) -> np.ndarray:
    try:
        bits = int(dataset.BitsAllocated)
        if dataset.file_meta.TransferSyntaxUID in _PLAIN and bits in (8, 16):
            kind = "<i2" if bits == 16 and int(dataset.PixelRepresentation) else f"<u{bits // 8}"
            raw = np.frombuffer(dataset.PixelData, dtype=kind, count=rows * columns).reshape(rows, columns)
        else:
            raw = dataset.pixel_array
        slope, intercept = (
            float(dataset.get("RescaleSlope") or 1.0),
            float(dataset.get("RescaleIntercept") or 0.0),
        )
        return raw.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    except Exception as error:  # a missing decoder, too few bytes, a broken tag
        raise RecordRefused("cine-unreadable", "a frame's pixels cannot be decoded") from error
