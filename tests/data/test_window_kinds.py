"""What every kind of window refuses, whatever it makes of a recording."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.data.window_kinds import WINDOW_KINDS, Gather


@pytest.fixture(params=sorted(WINDOW_KINDS))
def gather(request: pytest.FixtureRequest) -> Gather:
    return WINDOW_KINDS[request.param]


def gathered(
    gather: Gather, counts: np.ndarray, begins: list[int], totals: list[int], starts: list[int]
) -> np.ndarray:
    places = (np.array(each) for each in (begins, totals, starts))
    return gather(counts, *places, length=7, leads=2, generator=None)


@pytest.mark.parametrize(("begin", "total", "start"), [
    (-1, 10, 0), (81, 10, 0), (0, 10, 4), (0, 10, -1), (0, 51, 0), (0, 6, 0), (2**62, 10, 0), (0, 2**62, 0),
])  # fmt: skip
def test_what_lies_outside_is_refused(gather: Gather, begin: int, total: int, start: int) -> None:
    with pytest.raises(ValueError, match="inside"):
        gathered(gather, np.zeros(100, np.int16), [begin], [total], [start])


def test_other_counts_are_refused(gather: Gather) -> None:
    for wrong in (np.zeros(100, np.int32), np.zeros((10, 10), np.int16)):
        with pytest.raises(ValueError, match="int16"):
            gathered(gather, wrong, [0], [10], [0])
    with pytest.raises(ValueError, match="every window"):
        gathered(gather, np.zeros(100, np.int16), [0, 1], [10], [0])
