"""Windows of the earlier generation: the rate, the range of each lead, the flips, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample

from cardionets_core.data.image_windows import FLIP_SHARE, at_500_hz, gather_image_windows


def packed(*recordings: np.ndarray, gap: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, begins and totals of recordings [L, T], with other values between them."""
    parts, begins, place = [], [], 0
    for recording in recordings:
        parts += [np.full(gap, 7777, np.int16), recording.astype(np.int16).ravel()]
        begins.append(place + gap)
        place += gap + recording.size
    return np.concatenate(parts), np.array(begins), np.array([each.shape[1] for each in recordings])


def noise(leads: int, samples: int, *, seed: int = 0, scale: float = 400.0) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).normal(size=(leads, samples)) * scale).astype(np.int16)


def gathered(counts: Any, begins: Any, totals: Any, starts: Any, **others: Any) -> np.ndarray:
    return gather_image_windows(counts, np.array(begins), np.array(totals), np.array(starts), **others)


def batch_of(rows: int, *, flips: np.random.Generator | None = None) -> np.ndarray:
    """Windows of one recording each of two leads, all different."""
    counts, begins, totals = packed(*(noise(2, 60, seed=row) for row in range(rows)))
    return gathered(counts, begins, totals, np.arange(rows) % 11, length=50, leads=2, generator=flips)


def test_a_tone_sampled_at_500_hz_is_the_window_of_its_250_hz_version() -> None:
    tones_hz = np.array([1.3, 7.7, 18.2, 39.1])[:, None]
    at_500 = np.sin(2 * np.pi * tones_hz * np.arange(5000) / 500 + 0.4)
    counts, begins, totals = packed(np.rint(20_000 * at_500[:, ::2]))
    (window,) = gathered(counts, begins, totals, [200], length=2000, leads=4)
    inside = at_500[:, 400:4400]
    for lead, tone in zip(window, inside, strict=True):
        assert np.corrcoef(lead, tone)[0, 1] > 0.9999
        # Each has its own least and largest sample, all but -1 and 1.
        assert np.abs(lead - tone)[600:-600].max() < 0.01
    assert np.abs(window[:, 1::2] - inside[:, 1::2])[:, 300:-300].max() < 0.01, "between the kept samples too"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    leads=st.integers(1, 12),
    length=st.integers(2, 60),
    batch=st.integers(1, 4),
)
def test_the_window_is_that_of_the_whole_recording_resampled(
    seed: int, leads: int, length: int, batch: int
) -> None:
    rng = np.random.default_rng(seed)
    recordings = [noise(leads, length + int(rng.integers(0, 30)), seed=seed + b) for b in range(batch)]
    counts, begins, totals = packed(*recordings)
    starts = rng.integers(0, totals - length + 1)
    found = gathered(counts, begins, totals, starts, length=length, leads=leads)
    assert found.dtype == np.float32 and found.shape == (batch, leads, 2 * length)
    for window, recording, start in zip(found, recordings, starts, strict=True):
        whole = resample(recording.astype(np.float64), 2 * recording.shape[1], axis=1)
        cut = whole[:, 2 * start : 2 * (start + length)]
        least, span = cut.min(axis=1, keepdims=True), np.ptp(cut, axis=1)[:, None]
        flat = np.ptp(recording[:, start : start + length], axis=1) == 0
        expected = np.where(flat[:, None], 0.0, 2 * (cut - least) / np.where(span > 0, span, 1.0) - 1)
        np.testing.assert_allclose(window, expected, atol=1e-4)


@pytest.mark.parametrize("samples", [49, 50, 2500])
def test_every_other_sample_is_one_of_the_kept(samples: int) -> None:
    kept = noise(3, samples)
    doubled = at_500_hz(kept)
    assert doubled.dtype == np.float32 and doubled.shape == (3, 2 * samples)
    np.testing.assert_allclose(doubled[:, ::2], kept, atol=1e-2)


def test_each_lead_spans_exactly_from_minus_one_to_one() -> None:
    recording = noise(12, 2500) * np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])[:, None]
    recording[4] = np.arange(2500) == 1200  # one count in one sample
    counts, begins, totals = packed(recording)
    (window,) = gathered(counts, begins, totals, [100], length=2250, leads=12)
    assert (window.min(axis=1) == -1.0).all() and (window.max(axis=1) == 1.0).all()


@pytest.mark.parametrize("value", [-32_768, -1, 0, 3, 32_767])
@pytest.mark.parametrize("samples", [2500, 2503])
def test_a_flat_lead_becomes_zeros_and_the_others_stay(value: int, samples: int) -> None:
    recording = noise(3, samples)
    recording[1] = value
    counts, begins, totals = packed(recording)
    with np.errstate(all="raise"):
        (window,) = gathered(counts, begins, totals, [2], length=2250, leads=3)
    assert not window[1].any()
    assert (window[[0, 2]].max(axis=1) == 1.0).all()


def test_a_lead_that_is_flat_within_the_window_alone_becomes_zeros() -> None:
    recording = noise(2, 400)
    recording[0, 100:300] = 12
    counts, begins, totals = packed(recording, recording)
    found = gathered(counts, begins, totals, [100, 99], length=200, leads=2)
    assert not found[0, 0].any() and found[0, 1].any()
    assert found[1, 0].any(), "one sample of it differs"
    assert not gathered(counts, begins, totals, [100, 99], length=1, leads=2).any()


def test_the_volts_of_a_count_do_not_matter() -> None:
    recording = noise(12, 2500)
    found = [
        gathered(*packed(factor * recording), [17], length=2250, leads=12) for factor in (1, 2, 3, 8, -1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[3])
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)
    np.testing.assert_allclose(found[0], -found[4], atol=1e-5)


def test_flips_are_exact_independent_and_of_the_published_share() -> None:
    rows = 4000
    plain, found = batch_of(rows), batch_of(rows, flips=np.random.default_rng(3))
    kinds = {
        (in_time, in_sign): (found == (sign * plain[:, :, ::step])).all(axis=(1, 2))
        for in_time, step in ((False, 1), (True, -1))
        for in_sign, sign in ((False, 1.0), (True, -1.0))
    }
    assert (np.sum(list(kinds.values()), axis=0) == 1).all(), "each is one of the four, leads alike"
    for (in_time, in_sign), which in kinds.items():
        share = (FLIP_SHARE if in_time else 1 - FLIP_SHARE) * (FLIP_SHARE if in_sign else 1 - FLIP_SHARE)
        assert which.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / rows))
    assert pytest.approx(1 / 3, abs=0.005) == FLIP_SHARE


def test_evaluation_flips_nothing_and_training_repeats_with_its_generator() -> None:
    np.testing.assert_array_equal(batch_of(20), batch_of(20))
    first, again, other = (batch_of(20, flips=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != batch_of(20)).any()


def test_rows_do_not_influence_each_other() -> None:
    recordings = [noise(2, 60, seed=0), noise(2, 75, seed=1, scale=9000.0), noise(2, 50, seed=2)]
    counts, begins, totals = packed(*recordings)
    together = gathered(counts, begins, totals, [3, 20, 0], length=50, leads=2)
    for row, start in enumerate([3, 20, 0]):
        alone = gathered(*packed(recordings[row]), [start], length=50, leads=2)
        np.testing.assert_array_equal(together[row], alone[0])
    changed = counts.copy()
    changed[begins[1] : begins[1] + 150] = 5
    moved = gathered(changed, begins, totals, [3, 20, 0], length=50, leads=2) != together
    assert moved.any(axis=(1, 2)).tolist() == [False, True, False]


def test_a_recording_is_read_and_never_written() -> None:
    counts, begins, totals = packed(noise(2, 60))
    counts.flags.writeable = False
    flips = np.random.default_rng(0)
    assert gathered(counts, begins, totals, [1], length=50, leads=2, generator=flips).shape == (1, 2, 100)


@pytest.mark.parametrize("flips", [None, np.random.default_rng(0)])
def test_nobody_is_a_batch(flips: np.random.Generator | None) -> None:
    found = gathered(np.zeros(0, np.int16), [], [], [], length=5, leads=12, generator=flips)
    assert found.shape == (0, 12, 10) and found.dtype == np.float32
