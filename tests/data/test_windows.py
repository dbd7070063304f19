"""The compiled gather against the plain standardisation, and what it must refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.data.windows import evaluation_starts, gather_windows


def standardise(window_LT: np.ndarray) -> np.ndarray:
    """Zero mean and unit SD jointly over leads and time; a constant window becomes zeros. Float32 [L, T]."""
    centred = window_LT.astype(np.float32) - np.float32(window_LT.mean(dtype=np.float64))
    deviation = float(np.sqrt(np.mean(np.square(centred, dtype=np.float64))))
    return centred / np.float32(deviation) if deviation > 1e-12 else np.zeros_like(centred)


def plain(
    counts: np.ndarray, begins: np.ndarray, totals: np.ndarray, starts: np.ndarray, length: int, leads: int
) -> np.ndarray:
    """Window by window, in double precision."""
    found = []
    for begin, total, start in zip(begins, totals, starts, strict=True):
        record = counts[begin : begin + leads * total].reshape(leads, total)
        found.append(standardise(record[:, start : start + length].astype(np.float64) * 0.001))
    return np.stack(found)


def gathered(
    counts: np.ndarray, begins: list[int], totals: list[int], starts: list[int], **sizes: int
) -> np.ndarray:
    return gather_windows(counts, np.array(begins), np.array(totals), np.array(starts), **sizes)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    leads=st.integers(1, 12),
    length=st.integers(1, 90),
    batch=st.integers(1, 5),
    scale=st.sampled_from([1.0, 30.0, 1000.0, 40_000.0]),
    offset=st.integers(-32_000, 32_000),
)
def test_the_gather_is_the_plain_standardisation(
    seed: int, leads: int, length: int, batch: int, scale: float, offset: int
) -> None:
    rng = np.random.default_rng(seed)
    totals = length + rng.integers(0, 40, batch)
    begins = 7 + np.concatenate([[0], np.cumsum(leads * totals + rng.integers(0, 9, batch))[:-1]])
    values = np.rint(offset + scale * rng.normal(size=int(begins[-1] + leads * totals[-1] + 3)))
    counts = values.clip(-32_768, 32_767).astype(np.int16)
    starts = rng.integers(0, totals - length + 1)
    found = gather_windows(counts, begins, totals, starts, length=length, leads=leads)
    assert found.dtype == np.float32 and found.shape == (batch, leads, length)
    for b in range(batch):
        begin = begins[b]
        window = counts[begin : begin + leads * totals[b]].reshape(leads, -1)[
            :, starts[b] : starts[b] + length
        ]
        exact = window.astype(np.float64) - window.mean(dtype=np.float64)
        deviation = exact.std()
        expected = exact / deviation if np.ptp(window) else np.zeros_like(exact)
        # A count's offset is rounded to float32 once; where all counts are large, that is all there is.
        allowed = 1e-6 * max(1.0, np.abs(expected).max()) + abs(float(window.mean())) * 1e-7 / max(
            deviation, 1e-9
        )
        assert np.abs(found[b] - expected).max() <= (allowed if np.ptp(window) else 0.0)


def test_a_batch_of_the_size_of_training_equals_standardise_to_a_millionth() -> None:
    rng = np.random.default_rng(0)
    counts = (200 * rng.normal(size=8 * 12 * 2500)).astype(np.int16)
    begins, totals = np.arange(8)[::-1] * 12 * 2500, np.full(8, 2500)
    starts = rng.integers(0, 251, 8)
    found = gather_windows(counts, begins, totals, starts, length=2250, leads=12)
    np.testing.assert_allclose(found, plain(counts, begins, totals, starts, 2250, 12), rtol=1e-6, atol=1e-6)
    assert np.abs(found.mean(axis=(1, 2), dtype=np.float64)).max() < 1e-7
    assert np.abs(found.std(axis=(1, 2), dtype=np.float64) - 1).max() < 1e-6


def test_the_largest_recording_does_not_overflow() -> None:
    counts = np.where(np.arange(12 * 150_000) % 2 == 0, -32_768, 32_767).astype(np.int16)
    found = gathered(counts, [0], [150_000], [0], length=150_000, leads=12)
    np.testing.assert_allclose(found, np.tile([-1.0, 1.0], (1, 12, 75_000)), atol=1e-6)


@pytest.mark.parametrize("value", [-32_768, -1, 0, 1, 999, 32_767])
def test_a_constant_window_gives_zeros(value: int) -> None:
    counts = np.full(50, value, np.int16)
    assert (gathered(counts, [0, 5], [10, 10], [0, 3], length=7, leads=2) == 0).all()


def test_one_count_that_differs_is_seen() -> None:
    counts = np.full(24_000, 30_000, np.int16)
    counts[0] -= 1
    found = gathered(counts, [0], [2000], [0], length=2000, leads=12)
    assert found[0, 0, 0] < -150 and np.isfinite(found).all()
    assert found.std(dtype=np.float64) == pytest.approx(1.0, rel=1e-3)


def test_a_read_only_memory_map_gives_the_same(tmp_path: Path) -> None:
    counts = np.random.default_rng(1).integers(-500, 500, 1000).astype(np.int16)
    np.save(tmp_path / "ecg.npy", counts)
    mapped = np.load(tmp_path / "ecg.npy", mmap_mode="r")
    sizes = {"length": 31, "leads": 3}
    begins, totals, starts = [401, 0, 17], [60, 40, 33], [29, 0, 2]
    np.testing.assert_array_equal(
        gathered(mapped, begins, totals, starts, **sizes), gathered(counts, begins, totals, starts, **sizes)
    )


def test_nobody_is_a_batch() -> None:
    assert gathered(np.zeros(0, np.int16), [], [], [], length=5, leads=12).shape == (0, 12, 5)


def test_evaluation_windows_are_first_middle_and_last() -> None:
    assert evaluation_starts(2500, 2250) == (0, 125, 250)
    assert evaluation_starts(2250, 2250) == (0,) and evaluation_starts(2251, 2250) == (0, 1)
