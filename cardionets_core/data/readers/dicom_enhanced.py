"""The frames of an enhanced (multi-frame) DICOM object (step 2 of the walk).

Comes in: the head of the file and what its top level says. Goes out: its frames, each with the position, time
and scale of its functional groups: those of the frame itself, else the shared ones, else the top level.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from cardionets_core.data.readers.dicom_header import DicomFrame, ItemBudget, parse_header

_GROUPS: list[BaseTag] = [Tag("SharedFunctionalGroupsSequence"), Tag("PerFrameFunctionalGroupsSequence")]
_PHASE = frozenset({"PHASE", "P", "VELOCITY", "PHASE MAP"})


def frames_of(head: bytes, *, first: DicomFrame, budget: ItemBudget) -> list[DicomFrame]:
    """All frames of the file that are magnitude images.

    Args:
        head: everything before the pixels.
        first: what the top level says.
        budget: of sequence items.

    Raises:
        Exception: whatever pydicom raises on torn groups; the caller makes a refusal of it.
    """
    dataset, _ = parse_header(head, tags=_GROUPS, budget=budget)
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or []), Dataset())
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    if own and len(own) != first.layout.frames:
        raise ValueError("the frames are not described one by one")
    if not own:
        return [replace(first, index=place, instance=place) for place in range(first.layout.frames)]
    frames = (_frame(first, place=place, groups=(group, shared)) for place, group in enumerate(own))
    return [frame for frame in frames if frame is not None]


def _frame(first: DicomFrame, *, place: int, groups: tuple[Dataset, ...]) -> DicomFrame | None:
    kinds = _parts(groups, "MRImageFrameTypeSequence", "FrameType")[2:3]
    kinds += _parts(groups, "MRImageFrameTypeSequence", "ComplexImageComponent")
    if any(str(kind) in _PHASE for kind in kinds):
        return None
    spacing = _numbers(groups, "PixelMeasuresSequence", "PixelSpacing")
    step = _numbers(groups, "PixelMeasuresSequence", "SpacingBetweenSlices") or _numbers(
        groups, "PixelMeasuresSequence", "SliceThickness"
    )
    position = _numbers(groups, "PlanePositionSequence", "ImagePositionPatient")
    orientation = _numbers(groups, "PlaneOrientationSequence", "ImageOrientationPatient")
    trigger = (
        _numbers(groups, "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
        or _numbers(groups, "UnassignedPerFrameConvertedAttributesSequence", "TriggerTime")
        or _numbers(groups, "TemporalPositionSequence", "TemporalPositionTimeOffset")
    )
    interval = _numbers(groups, "CardiacSynchronizationSequence", "RRIntervalTimeNominal")
    rank = _numbers(groups, "FrameContentSequence", "TemporalPositionIndex")
    slope = _numbers(groups, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = _numbers(groups, "PixelValueTransformationSequence", "RescaleIntercept")
    return replace(
        first,
        index=place,
        # Without trigger times the rank in time sorts; frames of one rank keep the file's order.
        instance=int(rank[0]) * first.layout.frames + place if rank else place,
        trigger_ms=trigger[0] if trigger else None,
        interval_ms=interval[0] if interval else first.interval_ms,
        spacing_mm=(spacing[0], spacing[1]) if len(spacing) == 2 else first.spacing_mm,
        step_mm=step[0] if step else first.step_mm,
        position_mm=position if len(position) == 3 else first.position_mm,
        orientation=orientation if len(orientation) == 6 else first.orientation,
        slope=slope[0] if slope else first.slope,
        intercept=intercept[0] if intercept else first.intercept,
    )


def _parts(groups: tuple[Dataset, ...], sequence: str, name: str) -> list[Any]:
    """The values of the first group that has the element; none where no group has it."""
    for group in groups:
        for item in group.get(sequence) or []:
            value = item.get(name)
            if value is not None:
                return [value] if isinstance(value, (str, int, float)) else list(value)
    return []


def _numbers(groups: tuple[Dataset, ...], sequence: str, name: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in _parts(groups, sequence, name))
    if not all(abs(number) < 1e9 for number in numbers):
        raise ValueError("a number is not finite")
    return numbers
