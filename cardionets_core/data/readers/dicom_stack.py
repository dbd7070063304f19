"""Which slices make the cine of a view, and in which order (step 2 of the walk; FORMATS section 6).

Comes in: the slices of one view, repeats and torn ones among them. Goes out: the slices that are kept, their
distance along the normal, and flags for what was left out. Positions are those of ImagePositionPatient
projected on the slice normal: SliceLocation and the order of names are wrong in files that are in
circulation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cardionets_core.data.readers.dicom_series import Slice
from cardionets_core.errors import RecordRefused

PARALLEL_COSINE = float(np.cos(np.radians(5.0)))
NEAREST_MM = 2.0
"""Two slices nearer than this are one slice, measured twice; or than half of the stated distance."""
MINIMUM_STACK = 3
"""Parallel slices without a name that are taken for a short axis: a long axis is at times taken twice."""
UNEVEN = 1.5
KEPT_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The slices of one cine.

    Attributes:
        slices: along the normal.
        slice_spacing_mm: median distance of neighbours; None for one slice.
        flags: ``series-repeated``, ``slice-incomplete``, ``slice-gap``, ``slice-not-parallel``,
            ``view-stack``.
    """

    slices: tuple[Slice, ...]
    slice_spacing_mm: float | None
    flags: frozenset[str]


def choose_long_axis(slices: Sequence[Slice]) -> Chosen:
    """One slice: the last whole one; of several planes in its series the middle one.

    Raises:
        RecordRefused: ``cine-frames``, no slice is whole.
    """
    whole = [one for one in slices if one.is_whole]
    if not whole:
        raise RecordRefused("cine-frames", "frames are missing and there is no whole repeat")
    last = [one for one in whole if one.order == whole[-1].order]
    flags = {"series-repeated"} if len(slices) > len(last) or any(one.is_repeated for one in last) else set()
    if len(last) > 1:
        flags.add("view-stack")
        last.sort(key=_place_mm)
    return Chosen(slices=(last[len(last) // 2],), slice_spacing_mm=None, flags=frozenset(flags))


def choose_short_axis(slices: Sequence[Slice]) -> Chosen:
    """A stack of parallel slices; each place is that of the last whole slice there.

    Slices of which every pass lacks frames are left out, as long as half of the places remain.

    Raises:
        RecordRefused: ``cine-frames`` or ``cine-geometry``.
    """
    parallel = _largest_parallel(slices)
    taken: list[Slice] = []
    flags = {"series-repeated"} if any(one.is_repeated for one in parallel) else set()
    whole = [one for one in parallel if one.is_whole]
    frames = Counter(len(one.frames) for one in whole).most_common(1)[0][0] if whole else 0
    fitting = [one for one in whole if len(one.frames) == frames and one.first.shape == whole[-1].first.shape]
    for one in reversed(fitting):
        if _is_apart(one, taken):
            taken.append(one)
        else:
            flags.add("series-repeated")
    lost = _distinct([one for one in parallel if one not in fitting and _is_apart(one, taken)])
    if not taken or len(taken) < KEPT_SHARE * (len(taken) + len(lost)):
        raise RecordRefused("cine-frames", "most slices lack frames")
    if len(parallel) < len(slices):
        flags.add("slice-not-parallel")
    if lost:
        flags.add("slice-incomplete")
    taken.sort(key=_place_mm)
    if len(taken) == 1:
        return Chosen(slices=tuple(taken), slice_spacing_mm=None, flags=frozenset(flags))
    # A slice that is left out still tells how far apart they lie.
    spacing_mm = float(np.median(np.diff(sorted(_place_mm(one) for one in taken + lost))))
    if np.diff([_place_mm(one) for one in taken]).max() > UNEVEN * spacing_mm:
        flags.add("slice-gap")
    return Chosen(slices=tuple(taken), slice_spacing_mm=spacing_mm, flags=frozenset(flags))


def parallel_groups(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one orientation and size together; those without an orientation each alone."""
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            if one.first.shape == group[0].first.shape and _are_parallel(one, group[0]):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def is_stack(slices: Sequence[Slice]) -> bool:
    """Whether parallel slices stand at enough different places to be a short axis."""
    return all(one.first.position_mm for one in slices) and len(_distinct(slices)) >= MINIMUM_STACK


def _largest_parallel(slices: Sequence[Slice]) -> list[Slice]:
    if any(one.normal is None or one.first.position_mm is None for one in slices):
        if len(slices) == 1:
            return list(slices)
        raise RecordRefused("cine-geometry", "the position or orientation of a slice is absent")
    groups = parallel_groups(slices)
    # Of equally large ones the later.
    largest = max(enumerate(groups), key=lambda item: (len(_distinct(item[1])), item[0]))[1]
    if len(_distinct(largest)) < KEPT_SHARE * sum(len(_distinct(group)) for group in groups):
        raise RecordRefused("cine-geometry", "the slices are not parallel")
    return largest


def _are_parallel(one: Slice, other: Slice) -> bool:
    if one.normal is None or other.normal is None:
        return False
    rows = np.array(one.first.orientation)[:3], np.array(other.first.orientation)[:3]
    return bool(one.normal @ other.normal > PARALLEL_COSINE and rows[0] @ rows[1] > PARALLEL_COSINE)


def _place_mm(one: Slice) -> float:
    """Position along the normal; 0 where unknown."""
    if one.normal is None or one.first.position_mm is None:
        return 0.0
    return float(one.normal @ np.array(one.first.position_mm))


def _is_apart(one: Slice, others: Sequence[Slice]) -> bool:
    nearest = max(NEAREST_MM, one.first.step_mm / 2)
    return all(abs(_place_mm(one) - _place_mm(other)) >= nearest for other in others)


def _distinct(slices: Sequence[Slice]) -> list[Slice]:
    """One slice of each place along the normal."""
    found: list[Slice] = []
    for one in slices:
        if _is_apart(one, found):
            found.append(one)
    return found
