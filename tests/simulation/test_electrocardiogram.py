"""The simulated ECG: Einthoven's identities, clinical intervals, the usual leads, and a message in them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.data.leads import swap_residual
from cardionets_core.data.quality import SWAP_FLAGGED, check_ecg
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused
from simulation.anatomy import mass_g
from simulation.electrocardiogram import draw_ecg
from simulation.hearts import Heart, draw_heart
from simulation.machines import Cart
from simulation.waves import intervals_of
from simulation.writers.cardiosoft import find_beats

MIX = {"cad": 0.12, "cm": 0.12, "hf": 0.10, "ph": 0.08, "pc": 0.03}
PLAIN = Heart(
    age_years=60,
    sex="female",
    heart_rate_bpm=62,
    lv_end_diastolic_ml=145,
    ejection_fraction=0.6,
    wall_thickness_mm=7.6,
    rv_end_diastolic_ml=158,
    rv_ejection_fraction=0.57,
    la_max_ml=68,
    ra_max_ml=78,
    conduction_delay_ms=7,
    axis_degrees=42,
)


def _clean(heart: Heart, rate_hz: int = 500) -> EcgRecord:
    return draw_ecg(heart, Cart(rate_hz=rate_hz, lowpass_hz=100), np.random.default_rng(0), clean=True)


def _beat(record: EcgRecord) -> np.ndarray:
    """Leads of the median beat, 0.3 s before to 0.5 s after the R peak."""
    before, after = round(0.3 * record.fs_hz), round(0.5 * record.fs_hz)
    beats = [b for b in find_beats(record) if before <= b < record.signal_mv.shape[1] - after]
    return np.median([record.signal_mv[:, b - before : b + after] for b in beats], axis=0)


@given(seed=st.integers(0, 2**20), rate_hz=st.sampled_from([250, 500, 1000]), clean=st.booleans())
@settings(max_examples=25, deadline=None)
def test_limb_leads_obey_einthoven(seed, rate_hz, clean):
    rng = np.random.default_rng(seed)
    record = draw_ecg(
        draw_heart(rng, prevalence=MIX), Cart(rate_hz=rate_hz, lowpass_hz=100), rng, clean=clean
    )
    assert record.signal_mv.shape == (12, 10 * rate_hz)
    assert record.signal_mv.dtype == np.float32
    assert record.leads == LEADS
    one, two, three, avr, avl, avf = record.signal_mv[:6].astype(np.float64)
    np.testing.assert_allclose(three, two - one, atol=1e-6)
    np.testing.assert_allclose(avr, -(one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(avl, one - two / 2, atol=1e-6)
    np.testing.assert_allclose(avf, two - one / 2, atol=1e-6)


def test_shuffled_leads_are_the_right_signals_under_wrong_names():
    right, shuffled = (draw_ecg(PLAIN, Cart(leads=leads), np.random.default_rng(1))
                       for leads in ("right", "shuffled"))  # fmt: skip
    np.testing.assert_array_equal(shuffled.signal_mv, right.signal_mv)
    assert right.leads == LEADS and set(shuffled.leads) == set(LEADS)
    moved = {name for name, true in zip(shuffled.leads, LEADS, strict=True) if name != true}
    assert moved == set(LEADS) - {"I", "II", "III"}, "only these stand where the alphabet puts them"
    with pytest.raises(RecordRefused) as caught:
        check_ecg(shuffled)
    assert caught.value.reason == "ecg-lead-swap"


def test_swapped_arms_are_what_the_electrodes_of_the_other_arm_see():
    right, swapped = (draw_ecg(PLAIN, Cart(leads=leads), np.random.default_rng(1))
                      for leads in ("right", "arms-swapped"))  # fmt: skip
    row = dict(zip(LEADS, right.signal_mv, strict=True))
    expected = [-row["I"], row["III"], row["II"], row["aVL"], row["aVR"], row["aVF"], *right.signal_mv[6:]]
    np.testing.assert_allclose(swapped.signal_mv, expected, atol=2e-6)
    assert swapped.leads == LEADS
    assert check_ecg(right).flags == frozenset() and check_ecg(swapped).flags == {"arm-reversal"}


def test_any_wrong_order_of_the_limb_names_breaks_the_identities():
    every, limbs = np.ones(12, dtype=bool), np.arange(6)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        signal = check_ecg(draw_ecg(draw_heart(rng, prevalence=MIX), Cart(), rng)).signal_mv
        left = [swap_residual(signal[[*order, *range(6, 12)]], usable=every) for order in permutations(limbs)]
        assert len(left) == 720 and left[0] < 1e-6, "the first is the right one"
        assert min(left[1:]) > 2 * SWAP_FLAGGED


def test_a_healthy_heart_has_the_usual_leads():
    beat = dict(zip(LEADS, _beat(_clean(PLAIN)), strict=True))
    qrs = slice(110, 190)
    assert beat["II"][qrs].max() > 0.4 > 0 > beat["aVR"][qrs].min()
    # V1 has a small r and a deep S, V5 and V6 a tall R; R grows from V1 to V4.
    assert -beat["V1"][qrs].min() > 1.5 * beat["V1"][qrs].max() > 0
    assert beat["V6"][qrs].max() > 2 * -beat["V6"][qrs].min()
    assert beat["V1"][qrs].max() < beat["V2"][qrs].max() < beat["V4"][qrs].max()
    for lead in ("I", "II", "V2", "V3", "V4", "V5", "V6"):
        assert beat[lead][230:390].max() > 0.05, f"T in {lead} is upright"
    assert 0.03 < beat["II"][20:110].max() < 0.3, "P in II is upright and small"


def test_amplitudes_are_those_of_an_ecg():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        signal = draw_ecg(draw_heart(rng, prevalence=MIX), Cart(), rng).signal_mv
        assert np.isfinite(signal).all()
        assert 0.3 < np.ptp(signal[7:11], axis=1).max() < 8.0


def _qrs_width_ms(record: EcgRecord) -> float:
    """Time during which the leads move quickly, around the R peak of the median beat."""
    beat = _beat(record)
    speed = np.sqrt(np.square(np.diff(beat[[0, 1, 6, 7, 8, 9, 10, 11]], axis=1)).sum(axis=0)) * record.fs_hz
    window = speed[round(0.18 * record.fs_hz) : round(0.46 * record.fs_hz)]
    fast = np.flatnonzero(window > 0.06 * window.max())
    return 1000.0 * (fast[-1] - fast[0] + 1) / record.fs_hz


def test_slow_conduction_widens_the_measured_qrs():
    widths = [
        _qrs_width_ms(_clean(replace(PLAIN, conduction_delay_ms=delay), 1000)) for delay in (2, 20, 40, 60)
    ]
    assert widths == sorted(widths)
    assert 60 <= widths[0] <= 115
    assert widths[-1] > widths[0] + 30


@given(seed=st.integers(0, 2**20))
@settings(max_examples=60, deadline=None)
def test_intervals_are_clinical(seed):
    heart = draw_heart(np.random.default_rng(seed), prevalence=MIX)
    interval = intervals_of(heart)
    assert 70 <= interval.qrs_ms <= 190
    assert 290 <= interval.qt_ms <= 540
    assert 100 <= interval.pq_ms <= 260
    assert interval.p_ms < interval.pq_ms
    corrected = interval.qt_ms / np.sqrt(interval.rr_ms / 1000)
    assert 340 <= corrected <= 520


def test_the_t_wave_comes_later_in_a_slower_rhythm():
    def t_peak_s(bpm: float) -> float:
        record = _clean(replace(PLAIN, heart_rate_bpm=bpm))
        lead = _beat(record)[LEADS.index("V4")]
        return float(lead[220:].argmax() + 220) / record.fs_hz - 0.3

    peaks = [t_peak_s(bpm) for bpm in (90, 75, 60, 48)]
    assert peaks == sorted(peaks)
    assert peaks[-1] > peaks[0] + 0.05


@pytest.mark.parametrize(
    ("field", "low", "high", "lead", "grows"),
    [
        ("rv_end_diastolic_ml", 120, 300, "V1", "max"),
        ("wall_thickness_mm", 7, 15, "V5", "max"),
        ("lv_end_diastolic_ml", 110, 260, "V2", "-min"),
    ],
)
def test_each_chamber_shows_in_its_lead(field, low, high, lead, grows):
    def size(value: float) -> float:
        qrs = _beat(_clean(replace(PLAIN, **{field: value})))[LEADS.index(lead), 100:210]
        return float(qrs.max() if grows == "max" else -qrs.min())

    assert size(high) > 1.2 * size(low)


def test_large_atria_show_in_the_p_wave():
    small, large = (
        _beat(_clean(replace(PLAIN, la_max_ml=size)))[LEADS.index("V1"), 20:110] for size in (50, 130)
    )
    assert -large.min() > 1.5 * -small.min(), "the terminal force in V1"


def test_the_same_seed_gives_the_same_recording_and_beats_differ_within_it():
    first, again = (draw_ecg(PLAIN, Cart(), np.random.default_rng(5)).signal_mv for _ in range(2))
    np.testing.assert_array_equal(first, again)
    record = draw_ecg(PLAIN, Cart(noise_mv=0, muscle_mv=0, mains_mv=0, wander_mv=0), np.random.default_rng(5))
    spaces = np.diff(find_beats(record))
    assert spaces.std() > 0
    assert abs(60 * record.fs_hz / spaces.mean() - PLAIN.heart_rate_bpm) < 4


def test_mains_residue_lies_at_the_carts_frequency():
    record = draw_ecg(PLAIN, Cart(mains_hz=60, mains_mv=0.1), np.random.default_rng(5))
    power = np.abs(np.fft.rfft(record.signal_mv[6]))
    frequency = np.fft.rfftfreq(record.signal_mv.shape[1], 1 / record.fs_hz)
    near = (frequency > 45) & (frequency < 70)
    assert abs(frequency[near][power[near].argmax()] - 60) < 0.2


def test_a_ridge_regression_reads_the_heart_from_the_clean_ecg():
    """The message is there: R2 on 250 held-out hearts, from the first 30 components of the median beat."""
    beats, rates, targets = [], [], []
    for index in range(900):
        heart = draw_heart(np.random.default_rng([2, index]), prevalence=MIX)
        record = _clean(heart, 250)
        beat = _beat(record)[[0, 1, 6, 7, 8, 9, 10, 11], ::2]
        beats.append((beat / beat.std()).ravel())
        rates.append(heart.heart_rate_bpm)
        targets.append(
            [
                heart.lv_end_diastolic_ml,
                heart.ejection_fraction,
                mass_g(heart),
                heart.rv_end_diastolic_ml,
                heart.la_max_ml,
            ]
        )
    train = 650
    x, y = np.array(beats), np.array(targets)
    x = x - x[:train].mean(axis=0)
    components = np.linalg.svd(x[:train], full_matrices=False)[2][:30]
    scores = np.column_stack([x @ components.T, rates])
    scores = (scores - scores[:train].mean(axis=0)) / scores[:train].std(axis=0)
    scores = np.column_stack([scores, np.square(scores[:, :10]), np.ones(len(scores))])
    y = (y - y[:train].mean(axis=0)) / y[:train].std(axis=0)
    gram = scores[:train].T @ scores[:train] + 3.0 * np.eye(scores.shape[1])
    predicted = scores[train:] @ np.linalg.solve(gram, scores[:train].T @ y[:train])
    r2 = 1.0 - np.square(y[train:] - predicted).sum(axis=0) / np.square(
        y[train:] - y[train:].mean(axis=0)
    ).sum(axis=0)
    assert (r2 > 0.45).all(), r2
    assert (r2 < 0.9).all(), f"too easy: {r2}"
