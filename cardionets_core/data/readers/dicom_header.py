"""One DICOM header: parsed within bounds, its values, and what of them a frame keeps (step 2 of the walk).

Comes in: the first bytes of a file. Goes out: the wanted elements and where the pixels begin. Names, dates
and identifiers are never parsed into anything that lives on. Values are decoded from the raw elements: a
study has hundreds of files, and pydicom's own conversion takes most of the time.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from cardionets_core.data.readers.archive import StudyFile
from cardionets_core.errors import RecordRefused

HEADER_BYTES = 4_000_000
"""Most that may stand before the pixels; the 600 frames of a short axis take about 1 MB."""
MAXIMUM_ITEMS = 50_000
"""Sequence items in one header: each costs pydicom 700 bytes and 17 us, and 8 bytes of a hostile file."""
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_ITEM = b"\xfe\xff\x00\xe0"
_TAGS: dict[str, BaseTag] = {
    name: Tag(name)
    for name in (
        "ImageType",
        "SeriesDescription",
        "SeriesNumber",
        "SeriesInstanceUID",
        "InstanceNumber",
        "TriggerTime",
        "NominalInterval",
        "CardiacNumberOfImages",
        "SliceThickness",
        "SpacingBetweenSlices",
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
        "SamplesPerPixel",
        "NumberOfFrames",
        "RescaleSlope",
        "RescaleIntercept",
        "PhotometricInterpretation",
    )
}
WANTED = list(_TAGS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """How the pixels of a file are stored.

    Attributes:
        file: where they lie.
        transfer_syntax: its UID.
        rows: Y.
        columns: X.
        frames: in the file.
        bits_allocated: of a stored value.
        bits_stored: of it that count.
        is_signed: whether values may be negative.
        offset: of the PixelData element in the file; None where it stands beyond what was read.
    """

    file: StudyFile
    transfer_syntax: str
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    offset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFrame:
    """One frame.

    Attributes:
        layout: of the file that holds it.
        index: of the frame in its file, from 0.
        series: SeriesDescription.
        series_number: SeriesNumber, 0 where absent.
        series_key: tells series with one number apart; stays in this process.
        instance: InstanceNumber, or the place in a multi-frame file.
        trigger_ms: since the R wave; None where absent.
        interval_ms: of the heart beat, 0 where absent.
        frames_promised: CardiacNumberOfImages, 0 where absent.
        spacing_mm: (between rows, between columns), or None.
        step_mm: what the file says of the distance or thickness of slices, 0 where absent; not to be trusted.
        position_mm: of the first pixel, LPS; None where absent.
        orientation: of rows and columns, six numbers; None where absent.
        slope: from stored to scanner units.
        intercept: likewise.
    """

    layout: PixelLayout
    index: int
    series: str
    series_number: int
    series_key: str
    instance: int
    trigger_ms: float | None
    interval_ms: float
    frames_promised: int
    spacing_mm: tuple[float, float] | None
    step_mm: float
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    slope: float
    intercept: float

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.layout.rows, self.layout.columns


@dataclass(slots=True, kw_only=True)
class ItemBudget:
    """How many sequence items may still be parsed in a study: a hostile one could hold billions."""

    left: int = 400_000

    def take(self, count: int) -> None:
        """Spend some; refuses with ``cine-too-large`` what is too much for one header or for the study."""
        self.left -= count
        if count > MAXIMUM_ITEMS or self.left < 0:
            raise RecordRefused("cine-too-large", "the headers hold more sequence items than any cine")


def parse_header(head: bytes, *, tags: list[BaseTag], budget: ItemBudget) -> tuple[Dataset, int | None]:
    """The wanted elements before the pixels, and where the pixels begin; None where not in these bytes.

    Raises:
        RecordRefused: ``cine-unsupported`` or ``cine-too-large``.
        Exception: whatever pydicom raises on torn bytes; the caller makes a refusal of it.
    """
    if DeflatedExplicitVRLittleEndian.encode() in head:
        # pydicom would inflate all of it, however much that is.
        raise RecordRefused("cine-unsupported", "a deflated DICOM file")
    budget.take(head.count(_ITEM))
    stream = io.BytesIO(head)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(tags))
    if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        raise RecordRefused("cine-unsupported", "a DICOM file in the retired byte order")
    offset = stream.tell()
    return dataset, offset if head[offset : offset + 4] == _PIXEL_DATA else None


def _raw(dataset: Dataset, name: str) -> bytes:
    """Undecoded bytes of an element; empty where it is absent."""
    if _TAGS[name] not in dataset:
        return b""
    value = dataset.get_item(_TAGS[name]).value
    return value if isinstance(value, bytes) else str("" if value is None else value).encode()


def text_of(dataset: Dataset, name: str) -> str:
    """A text element without its padding; empty where absent."""
    return _raw(dataset, name).decode("latin-1").strip(" \0")


def short_of(dataset: Dataset, name: str) -> int:
    """An unsigned 16-bit element; 0 where absent."""
    return int.from_bytes(_raw(dataset, name)[:2], "little")


def numbers_of(dataset: Dataset, name: str) -> tuple[float, ...]:
    """A decimal or integer string of one or more values; none where absent.

    Raises:
        ValueError: a number is not finite, or is none.
    """
    values = tuple(float(part) for part in text_of(dataset, name).split("\\") if part.strip())
    if not all(abs(value) < 1e9 for value in values):
        raise ValueError("a number is not finite")
    return values


def number_of(dataset: Dataset, name: str, *, default: float) -> float:
    """The first value of a decimal or integer string."""
    values = numbers_of(dataset, name)
    return values[0] if values else default
