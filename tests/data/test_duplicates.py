"""Near-duplicates: copies are found whatever was done to them, different recordings are not taken for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample

from cardionets_core.data.duplicates import (
    RADIUS,
    SIGNATURE_LENGTH,
    Duplicates,
    are_alike,
    ecg_signature,
    find_duplicates,
)
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.muse_xml import READER as MUSE
from cardionets_core.data.readers.wfdb_ecg import read_wfdb
from cardionets_core.data.records import LEADS, EcgRecord
from simulation.electrocardiogram import draw_ecg
from simulation.hearts import draw_heart
from simulation.machines import Cart

OPEN_SETS = ("georgia", "ningbo", "cpsc", "ptbxl_challenge", "ptbxl_native/records500")


def packed(record: EcgRecord) -> np.ndarray:
    return np.rint(check_ecg(record).signal_mv * 1000).clip(-32_768, 32_767).astype(np.int16)


def found(recordings: Sequence[np.ndarray], patients: Sequence[int] | None = None) -> Duplicates:
    owners = np.arange(len(recordings)) if patients is None else np.array(patients)
    signatures = np.stack([ecg_signature(counts) for counts in recordings])
    return find_duplicates(signatures, owners, lambda place: recordings[place], splits=owners % 2)


def hearts(count: int, *, seed: int = 0) -> list[EcgRecord]:
    """As many people in front of one cart, in sinus rhythm throughout."""
    rng = np.random.default_rng(seed)
    return [draw_ecg(draw_heart(rng, prevalence={}, mean_age=60), Cart(), rng) for _ in range(count)]


@pytest.fixture(scope="module")
def open_records(shared_data: Path) -> dict[str, EcgRecord]:
    folders = [shared_data / "ecg" / name for name in OPEN_SETS]
    return {path.stem: read_wfdb(path) for folder in folders for path in sorted(folder.glob("*.hea"))}


def test_of_the_open_recordings_only_the_one_that_georgia_holds_twice_is_found(
    open_records: dict[str, EcgRecord],
) -> None:
    names = list(open_records)
    alike = found([packed(record) for record in open_records.values()])
    assert [(names[one], names[other]) for one, other in alike.pairs] == [("E07509", "E07510")]
    assert alike.patients == 2 and alike.across_splits == 1
    np.testing.assert_array_equal(open_records["E07509"].signal_mv, open_records["E07510"].signal_mv)


def test_every_open_recording_is_found_again_cropped_noisy_and_at_another_gain(
    open_records: dict[str, EcgRecord],
) -> None:
    rng = np.random.default_rng(5)
    first, second = [], []
    for name, record in open_records.items():
        if name == "E07510":
            continue
        crop = round(0.2 * record.fs_hz)
        noisy = record.signal_mv[:, crop:] * 1.02 + 0.005 * rng.normal(size=record.signal_mv[:, crop:].shape)
        copy = EcgRecord(signal_mv=noisy.astype(np.float32), fs_hz=record.fs_hz, leads=record.leads)
        first.append(packed(record))
        second.append(packed(copy))
    alike = found(first + second)
    count = len(first)
    assert alike.pairs.tolist() == [[place, place + count] for place in range(count)]
    assert alike.patients == 2 * count


def test_one_recording_at_two_rates_is_one(shared_data: Path) -> None:
    folder = shared_data / "ecg" / "ptbxl_native"
    fine = [packed(read_wfdb(path)) for path in sorted((folder / "records500").glob("*.hea"))]
    coarse = [packed(read_wfdb(path)) for path in sorted((folder / "records100").glob("*.hea"))]
    assert found(fine + coarse).pairs.tolist() == [[place, place + 10] for place in range(10)]


def test_one_simulator_under_three_identifiers_is_found(shared_data: Path) -> None:
    paths = sorted((shared_data / "ecg" / "vendor" / "muse").glob("*.xml"))
    records = [MUSE.read(path, ReadOptions()) for path in paths]
    alike = found([packed(record) for record in records if isinstance(record, EcgRecord)])
    assert alike.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert alike.patients == 3 and alike.across_splits == 2


def test_simulated_people_are_not_taken_for_each_other_but_a_copy_is() -> None:
    records = hearts(60)
    recordings = [packed(record) for record in records]
    slow = resample(records[7].signal_mv, 2500, axis=1).astype(np.float32)
    recordings.append(packed(EcgRecord(signal_mv=slow, fs_hz=250.0, leads=LEADS)))
    assert found(recordings).pairs.tolist() == [[7, 60]]


def test_recordings_of_one_person_are_no_finding() -> None:
    counts = packed(hearts(1)[0])
    assert len(found([counts, counts, counts], [4, 4, 4]).pairs) == 0
    alike = found([counts, counts, counts], [4, 9, 4])
    assert alike.pairs.tolist() == [[0, 1], [1, 2]]
    assert alike.patients == 2 and alike.across_splits == 2
    assert found([counts, counts], [2, 4]).across_splits == 0


def test_a_signature_does_not_know_gain_and_hardly_rounding_and_shift() -> None:
    record = hearts(1, seed=3)[0]
    counts = packed(record)
    signature = ecg_signature(counts)
    assert signature.shape == (SIGNATURE_LENGTH,) and signature.dtype == np.float32
    assert np.linalg.norm(ecg_signature(5 * counts) - signature) < 1e-5
    coarse = (np.rint(counts / 5) * 5).astype(np.int16)
    assert np.linalg.norm(ecg_signature(coarse) - signature) < 0.1 * RADIUS
    assert np.linalg.norm(ecg_signature(counts[:, 50:]) - signature) < RADIUS
    turned = counts[[1, 0, *range(2, 12)]]
    assert np.linalg.norm(ecg_signature(turned) - signature) > RADIUS


def test_silence_is_like_nothing() -> None:
    silent = np.zeros((12, 2500), np.int16)
    assert not ecg_signature(silent).any()
    assert not are_alike(silent, silent)
    assert len(found([silent, silent]).pairs) == 0
    one_lead = silent.copy()
    one_lead[9] = packed(hearts(1)[0])[9]
    assert np.isfinite(ecg_signature(one_lead)).all()


def test_a_lead_that_is_flat_in_one_copy_does_not_hide_it() -> None:
    counts = packed(hearts(1, seed=1)[0])
    flat = counts.copy()
    flat[8] = 0
    assert are_alike(counts, flat) and are_alike(flat, counts)


def test_a_shift_of_a_second_is_found_and_another_heart_is_not() -> None:
    one, other = (packed(record) for record in hearts(2, seed=2))
    assert (
        are_alike(one, one[:, 250:])
        and are_alike(one[:, 250:], one)
        and are_alike(one[:, :2250], one[:, 250:])
    )
    assert not are_alike(one, other) and not are_alike(one, one[:, ::-1].copy())


def test_nobody_and_one_person_have_no_duplicates() -> None:
    none = np.zeros((0, SIGNATURE_LENGTH), np.float32)
    empty = np.zeros(0, np.int64)

    def read(place: int) -> np.ndarray:
        raise AssertionError("nothing may be read")

    for count in (0, 1):
        alike = find_duplicates(
            np.ones((count, SIGNATURE_LENGTH), np.float32), empty[:count], read, splits=empty
        )
        assert alike.pairs.shape == (0, 2) and (alike.patients, alike.across_splits) == (0, 0)
    assert len(find_duplicates(none, empty, read, splits=empty).pairs) == 0


def test_many_alike_cost_no_square(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = packed(hearts(1)[0])
    signatures = np.repeat(ecg_signature(counts)[None], 300, axis=0)
    monkeypatch.setattr("cardionets_core.data.duplicates.NEIGHBOURS", 3)
    monkeypatch.setattr("cardionets_core.data.duplicates.are_alike", lambda one, other: True)
    owners = np.arange(300)
    alike = find_duplicates(signatures, owners, lambda place: counts, splits=owners)
    assert 0 < len(alike.pairs) <= 4 * 300
