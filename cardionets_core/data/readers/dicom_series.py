"""Frames of a study become slices: grouped by series and place, sorted by time (step 2 of the walk).

Comes in: frames in any order. Goes out: slices, each one pass through the heart beat at one place, whole or
not. Which slices make a cine is decided elsewhere. Nothing here looks at names or pixels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cardionets_core.data.readers.dicom_header import DicomFrame

MINIMUM_FRAMES = 2
USUAL_FRAMES = 10
"""Slices of fewer frames do not tell how many a whole one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice of one series.

    Attributes:
        frames: in the order of time.
        frames_wanted: what a whole slice has: what the file promises, else what the others have.
        is_repeated: frames of an earlier pass through the same slice were left out.
    """

    frames: tuple[DicomFrame, ...]
    frames_wanted: int
    is_repeated: bool

    @property
    def is_whole(self) -> bool:
        """Whether no frame is missing."""
        return len(self.frames) >= self.frames_wanted

    @property
    def first(self) -> DicomFrame:
        """What holds of all its frames."""
        return self.frames[0]

    @property
    def order(self) -> tuple[int, str]:
        """Later series are greater."""
        return self.first.series_number, self.first.series_key

    @property
    def normal(self) -> np.ndarray | None:
        """Unit vector across the slice; None where the orientation is absent or no pair of axes."""
        if self.first.orientation is None:
            return None
        axes = np.array(self.first.orientation).reshape(2, 3)
        normal = np.cross(axes[0], axes[1])
        is_square = np.allclose(np.linalg.norm(axes, axis=1), 1, atol=0.01) and abs(axes[0] @ axes[1]) < 0.01
        return normal / np.linalg.norm(normal) if is_square else None

    @property
    def frame_ms(self) -> float | None:
        """Median time between frames; None where no file says."""
        times = [frame.trigger_ms for frame in self.frames if frame.trigger_ms is not None]
        if len(times) == len(self.frames) and len(set(times)) > 1:
            step = float(np.median(np.diff(np.array(sorted(times)))))
        else:
            step = self.first.interval_ms / len(self.frames)
        return step if step > 0 else None


def slices_of(frames: Iterable[DicomFrame]) -> list[Slice]:
    """All slices of some frames, those of later series last; a place with a single frame is no slice."""
    groups: dict[tuple[object, ...], list[DicomFrame]] = defaultdict(list)
    for frame in frames:
        groups[_place(frame)].append(frame)
    passes = [_last_pass(group) for group in groups.values()]
    passes = [one for one in passes if max(len(one[0]), one[0][0].frames_promised) >= MINIMUM_FRAMES]
    usual = _usual([len(kept) for kept, _ in passes])
    found = [
        Slice(
            frames=tuple(kept),
            frames_wanted=max(frame.frames_promised for frame in kept) or usual,
            is_repeated=repeated,
        )
        for kept, repeated in passes
    ]
    return sorted(found, key=lambda one: (one.order, min(frame.instance for frame in one.frames)))


def _place(frame: DicomFrame) -> tuple[object, ...]:
    """Equal for frames of one slice of one series."""
    numbers = (frame.orientation or ()) + (frame.position_mm or ())
    return (
        frame.series,
        frame.series_number,
        frame.series_key,
        frame.shape,
        frame.spacing_mm,
        tuple(round(number, 1 if place >= 6 else 3) for place, number in enumerate(numbers)),
    )


def _last_pass(frames: list[DicomFrame]) -> tuple[list[DicomFrame], bool]:
    """The frames of the last pass in the order of time, and whether there was an earlier one."""
    ordered = sorted(frames, key=lambda frame: frame.instance)
    times = [frame.trigger_ms for frame in ordered if frame.trigger_ms is not None]
    if len(times) < len(ordered) or len(set(times)) == 1:
        return ordered, False
    promised = ordered[0].frames_promised
    rising = all(before < after for before, after in pairwise(times))
    repeated = MINIMUM_FRAMES <= promised < len(ordered) and not rising
    if repeated:
        # Two breath holds under one series number: their times are not equal, for the heart rate differs.
        ordered, times = ordered[-promised:], times[-promised:]
    by_time = dict(zip(times, ordered, strict=True))
    return [by_time[time] for time in sorted(by_time)], repeated or len(by_time) < len(ordered)


def _usual(counts: list[int]) -> int:
    """The most common number of frames; of equally common ones the largest."""
    telling = [count for count in counts if count >= USUAL_FRAMES] or counts
    return max(Counter(telling).items(), key=lambda item: (item[1], item[0]))[0] if telling else 0
