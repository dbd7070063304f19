"""The cines of one DICOM study, in a folder, a zip or one file (step 2 of the walk; FORMATS section 6).

Comes in: a path. Goes out: one stack a view. A series' description tells its view where it says one; what has
no name is told by geometry: parallel slices are a short axis, a single slice is ``unknown`` unless the site
declares its view. The manifest of UK Biobank is not read: the DICOM tags are to be trusted.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom

from cardionets_core.data.readers.archive import StudyFile, study_files
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.cine_views import view_of_name
from cardionets_core.data.readers.dicom_frame import read_frames
from cardionets_core.data.readers.dicom_header import DicomFrame, ItemBudget
from cardionets_core.data.readers.dicom_pixels import MAXIMUM_VOXELS, read_pixels
from cardionets_core.data.readers.dicom_series import Slice, slices_of
from cardionets_core.data.readers.dicom_stack import (
    Chosen,
    choose_long_axis,
    choose_short_axis,
    is_stack,
    parallel_groups,
)
from cardionets_core.data.records import CineStack, View
from cardionets_core.errors import RecordRefused

MAXIMUM_HEADER_FRAMES = 20_000
_VIEWS: tuple[View, ...] = ("4ch", "2ch", "3ch", "sax")
_MIXED_ORDER: tuple[View, ...] = ("3ch", "4ch", "2ch")
_UNDECLARED = ReadOptions()
_LOOKED_AT = 40
"""Files of a folder that are opened to tell whether it is one study."""
_MR_IMAGES = b"1.2.840.10008.5.1.4.1.1.4"
_NOT_MR_IMAGES = (b"1.2.840.10008.5.1.4.1.1.4.2",)
"""MR spectroscopy."""
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
_STUDY_TAGS = ("StudyInstanceUID", "SOPClassUID")


def read_dicom_study(
    path: Path, options: ReadOptions = _UNDECLARED, *, views: Collection[str] = ()
) -> tuple[CineStack, ...]:
    """Read the cines of one study.

    Of repeated series the last whole one is taken. A view that cannot be used is left out while others can,
    which leaves the flag ``view-refused`` on those.

    Args:
        path: a folder, a zip, or one multi-frame file.
        options: ``view`` holds for slices whose view neither name nor geometry tells.
        views: those to read; by default those of the options. The others' pixels are not touched.

    Returns:
        One stack a view in the order of ``VIEWS``; several ``unknown`` ones only where no view is known.

    Raises:
        RecordRefused: ``cine-file-missing``, ``cine-too-large``, ``cine-unreadable``, ``cine-unsupported``,
            ``cine-no-view``, ``cine-frames``, ``cine-geometry`` or ``cine-spacing``.
    """
    try:
        with _quietly(), study_files(path) as files:
            return _read(files, options, views=views or options.views)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except Exception as error:  # zipfile and zlib raise many kinds on hostile bytes
        raise RecordRefused("cine-unreadable", "the study is torn", where=str(path)) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """No word of pydicom: what it warns of quotes the file, and may hold a name."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _read(files: list[StudyFile], options: ReadOptions, *, views: Collection[str]) -> tuple[CineStack, ...]:
    frames: list[DicomFrame] = []
    torn: list[RecordRefused] = []
    budget = ItemBudget()
    for file in files:
        try:
            frames += read_frames(file, budget=budget)
        except RecordRefused as refusal:
            torn.append(refusal)
        if len(frames) > MAXIMUM_HEADER_FRAMES or budget.left < 0:
            raise RecordRefused("cine-too-large", "the study holds too many frames, or too long headers")
    flags = frozenset({"file-unreadable"} if torn else ())
    known, unknown = _by_view(frames, options)
    wanted: list[tuple[View, Sequence[Slice]]] = [
        (view, known[view]) for view in _VIEWS if view in known and (not views or view in views)
    ]
    if not known and not views:
        wanted = [("unknown", group) for group in unknown]
    if not wanted:
        raise torn[0] if torn and not frames else RecordRefused("cine-no-view")
    chosen: list[tuple[View, Chosen]] = []
    refused: list[RecordRefused] = []
    for view, slices in wanted:
        try:
            chosen.append((view, choose_short_axis(slices) if view == "sax" else choose_long_axis(slices)))
        except RecordRefused as refusal:
            refused.append(refusal)
    if sum(_voxels(one) for _, one in chosen) > MAXIMUM_VOXELS:
        raise RecordRefused("cine-too-large", "the cines of the study have too many pixels")
    stacks: list[CineStack] = []
    for view, one in chosen:
        try:
            stacks.append(_stack(one, view=view, flags=flags))
        except RecordRefused as refusal:
            refused.append(refusal)
    if not stacks:
        raise refused[0]
    return tuple(_flagged(stack, "view-refused") for stack in stacks) if refused else tuple(stacks)


def _by_view(
    frames: list[DicomFrame], options: ReadOptions
) -> tuple[dict[View, list[Slice]], list[list[Slice]]]:
    """Slices of each view that is known, and groups of slices of one plane whose view is not."""
    named: dict[str, list[DicomFrame]] = defaultdict(list)
    says = {series: view_of_name(series) for series in {frame.series for frame in frames}}
    for frame in frames:
        named[says[frame.series]].append(frame)
    known: dict[View, list[Slice]] = {}
    for view in _VIEWS:
        if slices := slices_of(named.get(view, [])):
            known[view] = slices
    mixed = _planes(slices_of(named.get("lax-mixed", [])))
    if len(mixed) == len(_MIXED_ORDER):
        for view, plane in zip(_MIXED_ORDER, mixed, strict=True):
            known.setdefault(view, plane)
    unknown: list[list[Slice]] = []
    for group in parallel_groups(slices_of(named.get("nothing", []))):
        if is_stack(group) and options.view in (None, "sax"):
            if "sax" not in known:
                known["sax"] = group
        else:
            unknown += _planes(group)
    if options.view is not None and options.view not in known and unknown:
        known[options.view] = [one for plane in unknown for one in plane]
    return known, unknown


def _planes(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices at one place together, in the order in which they were first taken."""
    planes: dict[object, list[Slice]] = defaultdict(list)
    for one in slices:
        first = one.first
        numbers = (first.orientation or ()) + (first.position_mm or ())
        planes[(first.shape, tuple(round(number, 1) for number in numbers))].append(one)
    return list(planes.values())


def _voxels(chosen: Chosen) -> int:
    rows, columns = chosen.slices[0].first.shape
    return rows * columns * sum(len(one.frames) for one in chosen.slices)


def _stack(chosen: Chosen, *, view: View, flags: frozenset[str]) -> CineStack:
    first = chosen.slices[0].first
    if first.spacing_mm is None or any(one.first.spacing_mm != first.spacing_mm for one in chosen.slices):
        raise RecordRefused("cine-spacing", "PixelSpacing is absent, or differs between slices")
    count = len(chosen.slices[0].frames)
    ordered = [one.frames[place] for place in range(count) for one in chosen.slices]
    pixels = read_pixels(ordered)
    if len(chosen.slices) > 1:
        pixels = pixels.reshape(count, len(chosen.slices), *first.shape)
    steps = [one.frame_ms for one in chosen.slices if one.frame_ms is not None]
    return CineStack(
        pixels=pixels,
        spacing_mm=first.spacing_mm,
        slice_spacing_mm=chosen.slice_spacing_mm,
        frame_ms=float(np.median(steps)) if steps else None,
        view=view,
        flags=flags | chosen.flags,
    )


def _flagged(stack: CineStack, flag: str) -> CineStack:
    return replace(stack, flags=stack.flags | {flag})


def _recognises(path: Path, head: bytes) -> bool:
    if head and not head.startswith(b"PK"):
        is_image = head[128:132] == b"DICM" and _MR_IMAGES in head
        return is_image and not any(uid in head for uid in _NOT_MR_IMAGES)
    if head and path.suffix.lower() == ".zip":
        return True  # a torn one as well, so that it is refused for that
    if not path.is_dir():
        return False
    try:
        with _quietly(), study_files(path) as files:
            return _is_one_study(files)
    except Exception:  # an unreadable folder is of no format
        return False


def _is_one_study(files: Sequence[StudyFile]) -> bool:
    """Whether the DICOM files of a folder, those looked at, are MR images of one study.

    A folder of ECGs, or one above the studies of several people, is no recording itself.
    """
    step = max(1, len(files) // _LOOKED_AT)
    studies, classes = set(), set()
    for file in files[::step]:
        if file.read(132)[128:] != b"DICM":
            continue
        with file.opened() as stream:
            tags = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_STUDY_TAGS))
        studies.add(str(tags.get("StudyInstanceUID", "")))
        classes.add(str(tags.get("SOPClassUID", "")))
    images = {name for name in classes if name.encode().startswith(_MR_IMAGES)}
    return len(studies) == 1 and bool(images) and not any(name.startswith(_WAVEFORMS) for name in classes)


READER = Reader(
    name="dicom",
    kind="cine",
    title="DICOM cine study",
    suffixes=(".zip", ".dcm"),
    recognises=_recognises,
    read=read_dicom_study,
    folders=True,
)
