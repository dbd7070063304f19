"""ECG checks and filter: leads by name, missing samples, resampling, the filter, and every refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, resample, sosfiltfilt

from cardionets_core.data.quality import check_ecg, median_amplitude_mv, mend_missing, order_leads
from cardionets_core.data.readers.wfdb_ecg import read_wfdb
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.data.signal import filter_ecg, resample_ecg
from cardionets_core.errors import RecordRefused


def ecg(*, fs_hz: float = 500.0, seconds: float = 10.0, leads: tuple[str, ...] = LEADS) -> EcgRecord:
    """Beats of 1 mV as Gaussian waves; the limb leads obey Einthoven to the last bit of float32."""
    t = np.arange(round(fs_hz * seconds)) / fs_hz

    def wave(height: float, delay: float, width: float) -> np.ndarray:
        return height * np.exp(-0.5 * (((t - delay) % 0.85 - 0.4) / width) ** 2)

    def lead(scale: float, tilt: float) -> np.ndarray:
        return scale * (wave(1.0, 0.0, 0.012) + wave(0.15, -0.16, 0.025) + tilt * wave(0.3, 0.28, 0.05))

    rows = {"I": lead(0.7, 1.0), "II": lead(1.1, 0.6)}
    rows |= {"III": rows["II"] - rows["I"], "aVR": -(rows["I"] + rows["II"]) / 2}
    rows |= {"aVL": rows["I"] - rows["II"] / 2, "aVF": rows["II"] - rows["I"] / 2}
    rows |= {f"V{n}": lead(0.4 * n - 1.0 or 0.3, 0.2 * n) for n in range(1, 7)}
    return EcgRecord(
        signal_mv=np.stack([rows[n] for n in leads]).astype(np.float32), fs_hz=fs_hz, leads=leads
    )


def changed(record: EcgRecord, **rows: np.ndarray | float) -> EcgRecord:
    signal = record.signal_mv.copy()
    for name, row in rows.items():
        signal[record.leads.index(name)] = row
    return EcgRecord(signal_mv=signal, fs_hz=record.fs_hz, leads=record.leads)


def refusal(record: EcgRecord) -> str:
    with pytest.raises(RecordRefused) as caught:
        check_ecg(record)
    return caught.value.reason


def test_the_filter_is_scipys_forward_backward_butterworth() -> None:
    signal = np.random.default_rng(0).normal(size=(12, 2500))
    high = butter(5, 0.67 / 125, btype="highpass", output="sos")
    low = butter(5, 40 / 125, btype="lowpass", output="sos")
    expected = np.stack([sosfiltfilt(low, sosfiltfilt(high, row)) for row in signal])
    np.testing.assert_allclose(filter_ecg(signal), expected, atol=1e-12)


def test_resampling_is_the_fft_method_and_250_hz_is_untouched() -> None:
    signal = np.random.default_rng(1).normal(size=(2, 5003))
    np.testing.assert_allclose(resample_ecg(signal, 500.0)[1], resample(signal[1], 2501), atol=1e-12)
    np.testing.assert_array_equal(resample_ecg(signal, 250.0), signal)
    with pytest.raises(ValueError, match="100"):
        resample_ecg(signal, 99.0)
    with pytest.raises(ValueError, match="19"):
        filter_ecg(signal[:, :18])


def test_copies_at_all_rates_agree() -> None:
    reference = check_ecg(ecg(fs_hz=1000.0)).signal_mv
    assert reference.shape == (12, 2500)
    for fs_hz in (100.0, 240.0, 250.0, 400.0, 500.0):
        other = check_ecg(ecg(fs_hz=fs_hz)).signal_mv
        r = [np.corrcoef(a[250:-250], b[250:-250])[0, 1] for a, b in zip(reference, other, strict=True)]
        assert min(r) > (0.999 if fs_hz > 100 else 0.98)


def test_a_real_record_at_500_and_100_hz_is_the_same_heart(shared_data: Path) -> None:
    folder = shared_data / "ecg" / "ptbxl_native"
    fine = check_ecg(read_wfdb(folder / "records500" / "00841_hr.hea")).signal_mv
    coarse = check_ecg(read_wfdb(folder / "records100" / "00841_lr.hea")).signal_mv
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(fine, coarse, strict=True)) > 0.9


@pytest.mark.parametrize("dataset", ["georgia", "ningbo", "ptbxl_challenge", "cpsc", "ptbxl_native", "ptb"])
def test_every_open_record_passes(shared_data: Path, dataset: str) -> None:
    for header in sorted((shared_data / "ecg" / dataset).rglob("*.hea")):
        checked = check_ecg(read_wfdb(header))
        assert np.isfinite(checked.signal_mv).all() and checked.signal_mv.shape[0] == 12
        assert checked.swap_residual < 0.01
        flat = int((checked.signal_mv == 0).all(axis=1).sum())
        assert flat == (3 if header.stem in ("JS20004", "JS20008") else 0)
        assert ("flat-lead" in checked.flags) == (flat > 0)


def test_leads_go_by_name_whatever_case_and_prefix() -> None:
    record = ecg()
    order = np.random.default_rng(2).permutation(12)
    names = tuple(f"MDC_ECG_LEAD_{LEADS[n]}" if n % 2 else LEADS[n].lower() for n in order)
    shuffled = EcgRecord(signal_mv=record.signal_mv[order], fs_hz=500.0, leads=names)
    np.testing.assert_array_equal(check_ecg(shuffled).signal_mv, check_ecg(record).signal_mv)


@pytest.mark.parametrize(
    "limbs",
    [
        ("I", "II"),
        ("I", "III"),
        ("II", "III"),
        ("aVR", "aVL"),
        ("III", "aVF"),
        ("aVF", "I"),
        ("I", "II", "aVF"),
    ],
)
def test_limb_leads_follow_from_any_two(limbs: tuple[str, ...]) -> None:
    full = ecg()
    part = ecg(leads=(*limbs, "V1", "V2", "V3", "V4", "V5", "V6"))
    ordered, derived = order_leads(part)
    assert derived == 6 - len(limbs)
    np.testing.assert_allclose(ordered, full.signal_mv, atol=1e-5)
    assert "lead-derived" in check_ecg(part).flags


def test_missing_samples_are_interpolated_inside_a_lead() -> None:
    signal = np.array([[0.0, np.nan, np.nan, np.nan, 4.0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, np.inf],
                       [np.nan] * 4 + [1.0] * 12])  # fmt: skip
    short = mend_missing(signal)
    assert (short.filled, short.lost) == (0, 2) and (short.signal_mv == 0).all()
    long = mend_missing(np.concatenate([signal, np.ones((2, 16))], axis=1))
    assert (long.filled, long.lost) == (2, 0)
    mended = long.signal_mv
    np.testing.assert_allclose(mended[0, :6], [0, 1, 2, 3, 4, 5])
    assert mended[0, 15] == 7.5 and (mended[1, :4] == 1).all()


def test_one_missing_sample_does_not_spread() -> None:
    clean, record = check_ecg(ecg()).signal_mv, ecg()
    gap = record.signal_mv[3].copy()
    gap[2000] = np.nan
    checked = check_ecg(changed(record, aVR=gap))
    assert checked.flags == {"nan-filled"}
    np.testing.assert_allclose(checked.signal_mv, clean, atol=0.05)


def test_a_mostly_missing_lead_becomes_zero_and_is_flagged() -> None:
    record = ecg()
    gone = record.signal_mv[7].copy()
    gone[: len(gone) // 4] = np.nan
    checked = check_ecg(changed(record, V2=gone))
    assert checked.flags == {"nan-lead", "flat-lead"}
    assert (checked.signal_mv[7] == 0).all()


def test_spikes_of_eleven_millivolts_pass() -> None:
    record = ecg()
    spiky = record.signal_mv.copy()
    spiky[:, 1234] = 11.4
    spiky[6, [100, 2000, 3500]] = -11.0
    checked = check_ecg(EcgRecord(signal_mv=spiky, fs_hz=500.0, leads=LEADS))
    assert median_amplitude_mv(checked.signal_mv) == pytest.approx(
        median_amplitude_mv(check_ecg(record).signal_mv), rel=0.3
    )


def test_offset_and_drift_do_not_count_as_amplitude() -> None:
    record = ecg()
    drift = 50 + 20 * np.sin(2 * np.pi * 0.05 * np.arange(5000) / 500)
    checked = check_ecg(
        EcgRecord(signal_mv=(record.signal_mv + drift).astype(np.float32), fs_hz=500.0, leads=LEADS)
    )
    assert "lead-swap" in checked.flags or checked.swap_residual < 0.05


def test_a_swap_is_flagged_when_small_and_refused_when_gross() -> None:
    record = ecg()
    noise = 0.1 * np.random.default_rng(3).normal(size=5000)
    assert check_ecg(changed(record, aVL=record.signal_mv[4] + noise)).flags == {"lead-swap"}
    swapped = changed(record, II=record.signal_mv[3], aVR=record.signal_mv[1])
    assert refusal(swapped) == "ecg-lead-swap"


def with_rows(value: float, count: int) -> EcgRecord:
    return changed(ecg(), **dict.fromkeys(LEADS[:count], value))


@pytest.mark.parametrize(("record", "reason"), [
    (ecg(fs_hz=99.0), "ecg-rate-too-low"),
    (EcgRecord(signal_mv=ecg().signal_mv, fs_hz=float("nan"), leads=LEADS), "ecg-rate-too-low"),
    (ecg(seconds=4.9), "ecg-too-short"),
    (EcgRecord(signal_mv=np.zeros((12, 0), np.float32), fs_hz=500.0, leads=LEADS), "ecg-too-short"),
    (EcgRecord(signal_mv=np.zeros((12, 60_001), np.float32), fs_hz=100.0, leads=LEADS), "ecg-too-large"),
    (ecg(leads=LEADS[:-1]), "ecg-lead-missing"),
    (ecg(leads=("aVL", *LEADS[6:])), "ecg-lead-missing"),
    (with_rows(float("nan"), 7), "ecg-nan"),
    (with_rows(float("nan"), 6), "ecg-flat"),
    (with_rows(0.0, 12), "ecg-flat"),
    (with_rows(3.3, 6), "ecg-flat"),
    (EcgRecord(signal_mv=ecg().signal_mv * 1000, fs_hz=500.0, leads=LEADS), "ecg-amplitude"),
    (EcgRecord(signal_mv=ecg().signal_mv / 50, fs_hz=500.0, leads=LEADS), "ecg-amplitude"),
    (EcgRecord(signal_mv=ecg().signal_mv * np.float32(1e30), fs_hz=500.0, leads=LEADS), "ecg-amplitude"),
])  # fmt: skip
def test_refusals(record: EcgRecord, reason: str) -> None:
    assert refusal(record) == reason


def test_five_seconds_and_five_flat_leads_are_enough() -> None:
    assert check_ecg(ecg(seconds=5.0)).signal_mv.shape == (12, 1250)
    kept = check_ecg(changed(ecg(), **dict.fromkeys(LEADS[7:], 0.0)))
    assert (kept.signal_mv[7:] == 0).all() and np.isfinite(kept.signal_mv).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    fs_hz=st.sampled_from([100.0, 250.0, 257.3, 500.0]),
    samples=st.integers(0, 2600),
    nan_share=st.floats(0, 1),
    flat=st.integers(0, 12),
    exponent=st.integers(-30, 35),
)
def test_any_signal_comes_out_finite_or_is_refused(
    seed: int, fs_hz: float, samples: int, nan_share: float, flat: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(12, samples)).astype(np.float32) * np.float32(10.0**exponent)
    signal[:flat] = 0
    signal[rng.random(signal.shape) < nan_share] = np.nan
    try:
        checked = check_ecg(EcgRecord(signal_mv=signal, fs_hz=fs_hz, leads=LEADS))
    except RecordRefused:
        return
    assert np.isfinite(checked.signal_mv).all()
