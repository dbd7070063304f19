"""The frames of one DICOM file, before any pixel is looked at (step 2 of the walk).

Comes in: a file of a study. Goes out: for each of its frames the few values that sorting needs; nothing for a
file that is no grey magnitude image, a DICOMDIR or a report. Only the head of a file is read.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from cardionets_core.data.readers.archive import StudyFile
from cardionets_core.data.readers.dicom_enhanced import frames_of
from cardionets_core.data.readers.dicom_header import (
    HEADER_BYTES,
    WANTED,
    DicomFrame,
    ItemBudget,
    PixelLayout,
    number_of,
    numbers_of,
    parse_header,
    short_of,
    text_of,
)
from cardionets_core.errors import RecordRefused

HEAD_BYTES = 16_384
"""What is read of a file at first; the tags of a classic frame stand before the vendor's private ones."""
MAXIMUM_FRAMES = 4_000
MAXIMUM_PIXELS = 1_048_576
MAXIMUM_PIXEL_BYTES = 96_000_000
"""Of one file, plainly stored."""
_PHASE_IMAGES = frozenset({"P", "PHASE", "PHASE MAP", "VELOCITY", "VELOCITY MAP", "PHASE CONTRAST"})


def read_frames(file: StudyFile, *, budget: ItemBudget) -> list[DicomFrame]:
    """The frames of one file; none where it is no grey image.

    Raises:
        RecordRefused: ``cine-unreadable``, the tags are torn; ``cine-unsupported``; ``cine-too-large``.
    """
    try:
        head = file.read(HEAD_BYTES)
        if head[128:132] != b"DICM":
            return []
        dataset, offset = parse_header(head, tags=WANTED, budget=budget)
        if len(head) < file.size and ("Rows" not in dataset or _frame_count(dataset) > 1):
            head = file.read(HEADER_BYTES)
            dataset, offset = parse_header(head, tags=WANTED, budget=budget)
        return _frames(dataset, file=file, head=head, offset=offset, budget=budget)
    except RecordRefused:
        raise
    except Exception as error:  # pydicom, zipfile and zlib raise many kinds on hostile bytes
        raise RecordRefused("cine-unreadable", "a DICOM file is torn") from error


def _frames(
    dataset: Dataset, *, file: StudyFile, head: bytes, offset: int | None, budget: ItemBudget
) -> list[DicomFrame]:
    rows, columns = short_of(dataset, "Rows"), short_of(dataset, "Columns")
    photometric = text_of(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if rows * columns < 1 or short_of(dataset, "SamplesPerPixel") > 1 or photometric != "MONOCHROME2":
        return []
    kind = text_of(dataset, "ImageType").upper().split("\\")
    count = _frame_count(dataset)
    if len(kind) > 2 and kind[2].strip() in _PHASE_IMAGES:
        return []
    bits = short_of(dataset, "BitsAllocated")
    pixel_bytes = rows * columns * count * max(bits // 8, 1)
    if rows * columns > MAXIMUM_PIXELS or count > MAXIMUM_FRAMES or pixel_bytes > MAXIMUM_PIXEL_BYTES:
        raise RecordRefused("cine-too-large", f"{rows} x {columns} pixels, {count} frames")
    layout = PixelLayout(
        file=file,
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=rows,
        columns=columns,
        frames=count,
        bits_allocated=bits,
        bits_stored=short_of(dataset, "BitsStored") or bits,
        is_signed=bool(short_of(dataset, "PixelRepresentation")),
        offset=offset,
    )
    first = _frame(dataset, layout)
    if count == 1:
        return [first]
    return frames_of(head, first=first, budget=budget)


def _frame(dataset: Dataset, layout: PixelLayout) -> DicomFrame:
    spacing = numbers_of(dataset, "PixelSpacing")
    trigger = numbers_of(dataset, "TriggerTime")
    position = numbers_of(dataset, "ImagePositionPatient")
    orientation = numbers_of(dataset, "ImageOrientationPatient")
    thickness = number_of(dataset, "SliceThickness", default=0.0)
    return DicomFrame(
        layout=layout,
        index=0,
        series=text_of(dataset, "SeriesDescription"),
        series_number=int(number_of(dataset, "SeriesNumber", default=0.0)),
        series_key=text_of(dataset, "SeriesInstanceUID"),
        instance=int(number_of(dataset, "InstanceNumber", default=0.0)),
        trigger_ms=trigger[0] if trigger else None,
        interval_ms=number_of(dataset, "NominalInterval", default=0.0),
        frames_promised=int(number_of(dataset, "CardiacNumberOfImages", default=0.0)),
        spacing_mm=(spacing[0], spacing[1]) if len(spacing) == 2 else None,
        step_mm=number_of(dataset, "SpacingBetweenSlices", default=thickness),
        position_mm=position if len(position) == 3 else None,
        orientation=orientation if len(orientation) == 6 else None,
        slope=number_of(dataset, "RescaleSlope", default=1.0),
        intercept=number_of(dataset, "RescaleIntercept", default=0.0),
    )


def _frame_count(dataset: Dataset) -> int:
    return int(number_of(dataset, "NumberOfFrames", default=1.0))
