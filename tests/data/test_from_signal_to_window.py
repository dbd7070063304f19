"""A recording's whole way to a window: finite, left out by name, or refused by name (SCIENCE 3, 8.13)."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.data.cohort import Cohort
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import RecordRefused

PAPER = InputShape(ecg_samples=2250, cine_frames=50, cine_pixels=96)
FAULTS = [frozenset(some) for some in ((), ("gap",), ("flat",), ("gap", "flat"))]
SECONDS = (4.0, 6.0, 8.996, 9.0, 9.004, 10.0)


def make_record(fs_hz: float, seconds: float, *, faults: frozenset[str]) -> EcgRecord:
    """Beats whose limb leads obey Einthoven, with a gap, a flat lead, or both."""
    t = np.arange(round(fs_hz * seconds)) / fs_hz
    beat = np.exp(-0.5 * (((t % 0.85) - 0.4) / 0.02) ** 2) - 0.2 * np.exp(
        -0.5 * (((t % 0.85) - 0.6) / 0.06) ** 2
    )
    one, two, *chest = np.array([0.7, 1.1, -0.4, 0.5, 0.9, 1.3, 1.2, 1.0])[:, None] * beat
    rows = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])
    if "gap" in faults:
        rows[8, 100:160] = np.nan
    if "flat" in faults:
        rows[10] = 0.0
    return EcgRecord(signal_mv=rows.astype(np.float32), fs_hz=fs_hz, leads=LEADS)


def make_cohort(signal_mv: np.ndarray) -> Cohort:
    """One row of one recording at 250 Hz."""
    one = np.zeros(1, dtype=np.int64)
    return Cohort(
        site="a",
        digest="a",
        ecg_counts=np.rint(1000 * signal_mv).astype(np.int16).ravel(),
        ecg_offsets=one,
        ecg_samples=np.array([signal_mv.shape[1]]),
        cines=np.zeros((0, 50, 96, 96), dtype=np.uint8),
        row_patient=one,
        row_split=one.astype(np.int8),
        row_ecg=one,
        row_cine=one - 1,
        phenotypes=np.full((1, 82), np.nan, dtype=np.float32),
        diseases=np.full((1, 8), np.nan, dtype=np.float32),
    )


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("fs_hz", [250.0, 500.0, 1000.0])
def test_every_length_rate_and_fault_ends_somewhere_known(fs_hz, seconds, faults):
    record = make_record(fs_hz, seconds, faults=faults)
    if seconds < 5.0:
        with pytest.raises(RecordRefused) as caught:
            check_ecg(record)
        assert caught.value.reason == "ecg-too-short"
        return
    checked = check_ecg(record)
    assert checked.flags == {{"gap": "nan-filled", "flat": "flat-lead"}[fault] for fault in faults}
    assert checked.signal_mv.shape == (12, int(record.signal_mv.shape[1] * 250 / fs_hz))
    assert np.isfinite(checked.signal_mv).all()
    cohort = make_cohort(checked.signal_mv)
    rows = cohort.rows(frozenset({"ecg"}), "train", PAPER)
    assert len(rows) == (checked.signal_mv.shape[1] >= 2250), "a short recording is for inference only"
    for window in range(3 * len(rows)):
        ecg = cohort.batch(rows, keys=frozenset({"ecg"}), shape=PAPER, window=window % 3).ecg_BLT.numpy()
        assert ecg.shape == (1, 12, 2250) and np.isfinite(ecg).all()
        assert ecg.mean() == pytest.approx(0.0, abs=1e-4) and ecg.std() == pytest.approx(1.0, abs=1e-3)
        flat = np.ptp(ecg[0], axis=1) == 0
        assert flat.tolist() == [lead == "V5" and "flat" in faults for lead in LEADS]


def test_copies_at_500_and_1000_hz_give_the_same_window():
    windows = []
    for fs_hz in (500.0, 1000.0):
        cohort = make_cohort(check_ecg(make_record(fs_hz, 10.0, faults=frozenset())).signal_mv)
        batch = cohort.batch(np.zeros(1, dtype=np.int64), keys=frozenset({"ecg"}), shape=PAPER, window=1)
        windows.append(batch.ecg_BLT[0].numpy())
    for one, other in zip(*windows, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.999
