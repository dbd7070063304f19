"""A patient's folder in the layout of ACDC (step 2 of the walk; FORMATS section 6).

``Info.cfg`` names ED and ES, counted from 1. ``*_4d.nii.gz`` is the cine; where it is absent, the two frames
``*_frameDD.nii.gz`` alone make a stack of two, which shows and measures but cannot be prepared. ``_gt``
beside a frame is its segmentation, with labels as ACDC writes them unless the site declares otherwise.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.nifti_stack import labels_of, stack_of, with_mask
from cardionets_core.data.readers.nifti_volume import read_volume
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused

MAXIMUM_ENTRIES = 1_000
MAXIMUM_FRAME_VOXELS = 24_000_000
"""Of all single frames together."""
_INFO = "Info.cfg"
_FRAME = re.compile(r"(?P<stem>.+)_frame(?P<number>\d{1,4})\.nii(\.gz)?", re.I)
_CINE = re.compile(r".+_4d\.nii(\.gz)?", re.I)
_MASK = re.compile(r"(?P<stem>.+)_frame(?P<number>\d{1,4})_gt\.nii(\.gz)?", re.I)
_ENTRY = re.compile(r"^\s*(?P<key>ED|ES)\s*:\s*(?P<value>\d{1,6})\s*$", re.M)


def is_acdc_folder(folder: Path) -> bool:
    """Whether a folder bears the marks of the layout."""
    return (folder / _INFO).is_file() and any(
        _FRAME.fullmatch(name) or _CINE.fullmatch(name) for name in _names(folder)
    )


def read_acdc_folder(folder: Path, options: ReadOptions) -> tuple[CineStack, ...]:
    """The short axis of one patient.

    Raises:
        RecordRefused: ``cine-file-missing``, ``cine-unreadable``, ``cine-too-large``, ``cine-geometry``
            (frames that differ in size), ``cine-mask`` and what ``read_volume`` raises.
    """
    ed, es = _phases(folder)
    names = _names(folder)
    frames = {int(match["number"]): folder / match[0] for name in names if (match := _FRAME.fullmatch(name))}
    masks = {int(match["number"]): folder / match[0] for name in names if (match := _MASK.fullmatch(name))}
    cine = next((folder / name for name in names if _CINE.fullmatch(name)), None)
    if cine is not None:
        stack = stack_of(read_volume(cine), view=options.view)
        numbers = list(range(1, len(stack.pixels) + 1))
    else:
        numbers = sorted(frames)
        stack = _from_frames([frames[number] for number in numbers])
    if ed in numbers and es in numbers:
        stack = replace(stack, ed_frame=numbers.index(ed), es_frame=numbers.index(es), phase_source="given")
    drawn = [number for number in numbers if number in masks]
    if not drawn:
        return (stack,)
    mask = np.zeros(stack.pixels.shape, dtype=np.uint8)
    for number in drawn:
        one = mask[numbers.index(number)]
        one[...] = labels_of(
            read_volume(masks[number], labels=True), label_map=options.label_map or "acdc", like=one
        )
    return (with_mask(stack, mask),)


def _from_frames(paths: list[Path]) -> CineStack:
    if not paths:
        raise RecordRefused("cine-file-missing", "the folder holds no frame")
    parts: list[CineStack] = []
    left = MAXIMUM_FRAME_VOXELS
    for path in paths:
        part = stack_of(read_volume(path, maximum_voxels=left), view=None, third_axis="slices")
        left -= part.pixels.size
        parts.append(part)
    first = parts[0]
    if any(part.pixels.shape != first.pixels.shape or part.spacing_mm != first.spacing_mm for part in parts):
        raise RecordRefused("cine-geometry", "the frames differ in size")
    return replace(first, pixels=np.concatenate([part.pixels for part in parts]), view="sax", frame_ms=None)


def _phases(folder: Path) -> tuple[int, int]:
    """(ED, ES) as Info.cfg counts them, from 1; 0 where it names none."""
    text = read_bytes(folder / _INFO, kind="cine", limit_bytes=10_000).decode("latin-1")
    entries = {match["key"]: int(match["value"]) for match in _ENTRY.finditer(text)}
    return entries.get("ED", 0), entries.get("ES", 0)


def _names(folder: Path) -> list[str]:
    try:
        names = [path.name for _, path in zip(range(MAXIMUM_ENTRIES), folder.iterdir(), strict=False)]
    except OSError:
        return []
    return sorted(names)
