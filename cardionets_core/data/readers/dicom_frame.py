"""One DICOM file as one frame of a cine (step 2 of the walk).

Comes in: the bytes of a file. Goes out: the few tags that sorting needs, and its pixels when asked for.
Names, dates and identifiers are never parsed into anything that lives on. Values are decoded from the raw
elements: a study has hundreds of files, and pydicom's own conversion takes most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cardionets_core.errors import RecordRefused

MAXIMUM_PIXELS = 1_048_576
_PLAIN = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})
_TAGS: dict[str, BaseTag] = {
    name: Tag(name)
    for name in (
        "SeriesDescription",
        "SeriesNumber",
        "SeriesInstanceUID",
        "InstanceNumber",
        "TriggerTime",
        "CardiacNumberOfImages",
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "Rows",
        "Columns",
        "BitsAllocated",
        "PixelRepresentation",
        "SamplesPerPixel",
        "NumberOfFrames",
        "RescaleSlope",
        "RescaleIntercept",
        "PhotometricInterpretation",
        "BitsStored",
        "HighBit",
        "PlanarConfiguration",
        "PixelData",
    )
}
_WANTED = list(_TAGS.values())


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
        return _frame(pydicom.dcmread(stream, specific_tags=_WANTED))
    except Exception as error:  # pydicom raises many kinds on hostile bytes
        raise RecordRefused("cine-unreadable", "a DICOM file is torn") from error


def _frame(dataset: Dataset) -> DicomFrame | None:
    if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        raise ValueError("retired byte order")
    rows, columns = _short(dataset, "Rows"), _short(dataset, "Columns")
    is_single = (
        _numbers(dataset, "NumberOfFrames") in ((), (1.0,)) and _short(dataset, "SamplesPerPixel") <= 1
    )
    if _TAGS["PixelData"] not in dataset or not is_single or not 1 <= rows * columns <= MAXIMUM_PIXELS:
        return None
    instance = int(_number(dataset, "InstanceNumber", default=0.0))
    spacing = _numbers(dataset, "PixelSpacing")
    plane = _numbers(dataset, "ImageOrientationPatient") + _numbers(dataset, "ImagePositionPatient")
    return DicomFrame(
        series=_text(dataset, "SeriesDescription"),
        series_number=int(_number(dataset, "SeriesNumber", default=0.0)),
        series_key=_text(dataset, "SeriesInstanceUID"),
        instance=instance,
        trigger_ms=_number(dataset, "TriggerTime", default=float(instance)),
        frames_promised=int(_number(dataset, "CardiacNumberOfImages", default=0.0)),
        spacing_mm=(spacing[0], spacing[1]) if len(spacing) == 2 else None,
        plane=tuple(round(value, 1) for value in plane),
        shape=(rows, columns),
        pixels=lambda: _pixels(dataset, rows=rows, columns=columns),
    )


def _pixels(dataset: Dataset, *, rows: int, columns: int) -> np.ndarray:
    try:
        bits = _short(dataset, "BitsAllocated")
        if dataset.file_meta.TransferSyntaxUID in _PLAIN and bits in (8, 16):
            kind = "<i2" if bits == 16 and _short(dataset, "PixelRepresentation") else f"<u{bits // 8}"
            raw = np.frombuffer(_raw(dataset, "PixelData"), dtype=kind, count=rows * columns)
            raw = raw.reshape(rows, columns)
        else:
            raw = dataset.pixel_array
        slope = _number(dataset, "RescaleSlope", default=1.0)
        intercept = _number(dataset, "RescaleIntercept", default=0.0)
        return raw.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    except Exception as error:  # a missing decoder, too few bytes, a broken tag
        raise RecordRefused("cine-unreadable", "a frame's pixels cannot be decoded") from error


def _raw(dataset: Dataset, name: str) -> bytes:
    """Undecoded bytes of an element; empty where it is absent."""
    if _TAGS[name] not in dataset:
        return b""
    value = dataset.get_item(_TAGS[name]).value
    return value if isinstance(value, bytes) else str("" if value is None else value).encode()


def _text(dataset: Dataset, name: str) -> str:
    return _raw(dataset, name).decode("latin-1").strip(" \0")


def _short(dataset: Dataset, name: str) -> int:
    """An unsigned 16-bit element; 0 where absent."""
    return int.from_bytes(_raw(dataset, name)[:2], "little")


def _numbers(dataset: Dataset, name: str) -> tuple[float, ...]:
    """A decimal or integer string of one or more values."""
    values = tuple(float(part) for part in _text(dataset, name).split("\\") if part.strip())
    if not all(abs(value) < 1e9 for value in values):
        raise ValueError("a number is not finite")
    return values


def _number(dataset: Dataset, name: str, *, default: float) -> float:
    values = _numbers(dataset, name)
    return values[0] if values else default
