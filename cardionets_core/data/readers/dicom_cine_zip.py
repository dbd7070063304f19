"""The four-chamber cine of a UK Biobank long-axis zip, field 20208 (FORMATS section 2).

Step 2 of the walk. Comes in: the path of a zip of DICOM files. Goes out: the frames of one series, in the
order of their trigger times. The manifest is not read: the DICOM tags are to be trusted. Nothing is
unpacked to disk; the number, size and compression ratio of the members are bounded before any is opened.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.dicom_frame import DicomFrame, read_frame
from cardionets_core.data.readers.disk import check_size
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused

MAXIMUM_ZIP_BYTES = 500_000_000
MAXIMUM_MEMBERS = 2_000
MAXIMUM_MEMBER_BYTES = 8_000_000
MAXIMUM_TOTAL_BYTES = 1_500_000_000
MAXIMUM_RATIO = 200
MINIMUM_FRAMES = 20
_FOUR_CHAMBER = re.compile(r"CINE_segmented_LAX_4Ch", re.I)
_MIXED = re.compile(r"CINE_segmented_LAX", re.I)
_MIXED_ORDER = ("3ch", "4ch", "2ch")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Frames that share one series, in the order of time."""

    number: int
    frames: tuple[DicomFrame, ...]

    @property
    def is_complete(self) -> bool:
        promised = self.frames[0].frames_promised
        return len(self.frames) >= (promised or MINIMUM_FRAMES)


def read_dicom_cine_zip(path: Path) -> CineStack:
    """Read the four-chamber cine of one study.

    Of repeated series the last whole one is taken. A single mixed ``CINE_segmented_LAX`` series is split by
    position and its views are told by their order: three, four, two chambers.

    Raises:
        RecordRefused: ``cine-file-missing``, ``cine-too-large``, ``cine-unreadable``, ``cine-no-view``,
            ``cine-frames`` or ``cine-spacing``.
    """
    check_size(path, kind="cine", limit_bytes=MAXIMUM_ZIP_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            frames = [frame for content in _members(archive) if (frame := _frame(content)) is not None]
        return _stack(_choose(frames))
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except Exception as error:  # zipfile and zlib raise many kinds on hostile bytes
        raise RecordRefused("cine-unreadable", "the zip is torn or not a zip", where=str(path)) from error


def _members(archive: zipfile.ZipFile) -> Iterator[bytes]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAXIMUM_MEMBERS or sum(entry.file_size for entry in entries) > MAXIMUM_TOTAL_BYTES:
        raise RecordRefused("cine-too-large", "the zip holds too many or too large files")
    for entry in entries:
        if entry.file_size > MAXIMUM_RATIO * max(entry.compress_size, 1) + 100_000:
            raise RecordRefused("cine-too-large", "a file of the zip unpacks to far more than it should")
        name = entry.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or entry.flag_bits & 1:
            raise RecordRefused("cine-unreadable", "the zip holds a path that leaves it, or is encrypted")
        if not name.lower().endswith(".dcm"):
            continue
        if entry.file_size > MAXIMUM_MEMBER_BYTES:
            raise RecordRefused("cine-too-large", "a file of the zip is larger than any frame")
        with archive.open(entry) as stream:
            content = stream.read(MAXIMUM_MEMBER_BYTES + 1)
        if len(content) > MAXIMUM_MEMBER_BYTES:
            raise RecordRefused("cine-too-large", "a file of the zip is larger than it says")
        yield content


def _frame(content: bytes) -> DicomFrame | None:
    """The frame, or None where the file is no image of a long-axis cine."""
    # A cheap look at the bytes spares the parsing of the other series.
    if (
        b"CINE_segmented_LAX" not in content[:16_384]
        and b"cine_segmented_lax" not in content[:16_384].lower()
    ):
        return None
    return read_frame(io.BytesIO(content))


def _choose(frames: list[DicomFrame]) -> _Series:
    named = [frame for frame in frames if _FOUR_CHAMBER.fullmatch(frame.series)]
    if named:
        return _last_whole(named)
    mixed = [frame for frame in frames if _MIXED.fullmatch(frame.series)]
    views: dict[tuple[float, ...], list[DicomFrame]] = defaultdict(list)
    for frame in sorted(mixed, key=lambda frame: (frame.series_number, frame.instance)):
        views[frame.plane].append(frame)
    if len(views) != len(_MIXED_ORDER):
        raise RecordRefused("cine-no-view")
    return _last_whole(list(views.values())[_MIXED_ORDER.index("4ch")])


def _last_whole(frames: list[DicomFrame]) -> _Series:
    groups: dict[tuple[int, str], dict[float, DicomFrame]] = defaultdict(dict)
    for frame in sorted(frames, key=lambda frame: frame.instance):
        groups[(frame.series_number, frame.series_key)][frame.trigger_ms] = frame
    series = [
        _Series(number=number, frames=tuple(group[time] for time in sorted(group)))
        for (number, _), group in sorted(groups.items())
    ]
    whole = [candidate for candidate in series if candidate.is_complete]
    if whole:
        return whole[-1]
    return max(series, key=lambda candidate: (len(candidate.frames), candidate.number))


def _stack(series: _Series) -> CineStack:
    first = series.frames[0]
    if len({frame.shape for frame in series.frames}) != 1:
        raise RecordRefused("cine-unreadable", "the frames differ in size")
    if first.spacing_mm is None:
        raise RecordRefused("cine-spacing", "no PixelSpacing")
    times = np.array([frame.trigger_ms for frame in series.frames])
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return CineStack(
        pixels=np.stack([frame.pixels() for frame in series.frames]),
        spacing_mm=first.spacing_mm,
        frame_ms=step if step > 0 else None,
    )


READER = Reader(
    name="dicom_zip",
    kind="cine",
    title="DICOM cine in a zip",
    suffixes=(".zip",),
    recognises=lambda path, head: head.startswith(b"PK"),
    read=lambda path, options: (read_dicom_cine_zip(path),),
)
