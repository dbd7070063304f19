"""Pseudonyms, splits, pairs and the leakage checker."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.data.cohort import SPLITS, Cohort, concatenate
from cardionets_core.data.leakage import check_leakage
from cardionets_core.data.listing import recording_keys
from cardionets_core.data.pairs import pair_visits
from cardionets_core.data.pseudonym import ensure_key, keyed_digest, load_key, pseudonym
from cardionets_core.data.records import Recording
from cardionets_core.data.split import split_of
from cardionets_core.errors import DataError

KEY = bytes(range(32))


def test_a_key_is_made_once_for_its_owner_alone_and_never_written_again(tmp_path: Path) -> None:
    path = tmp_path / "secret" / "pseudonym.key"
    with pytest.raises(DataError, match=r"folders\.secret"):
        load_key(path)
    key = ensure_key(path)
    assert len(key) == 32 and stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_mtime_ns
    assert ensure_key(path) == load_key(path) == key
    assert path.stat().st_mtime_ns == before and len(list(path.parent.iterdir())) == 1
    path.write_bytes(b"short")
    with pytest.raises(DataError, match="32 bytes"):
        ensure_key(path)
    assert path.read_bytes() == b"short"
    path.unlink()
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to(tmp_path / "nowhere")):
        make(path)
        for use in (load_key, ensure_key):
            with pytest.raises(DataError, match="must be a file") as caught:
                use(path)
            assert "prepare" not in caught.value.remedy
        (path.rmdir if path.is_dir() else path.unlink)()
    assert not list(path.parent.iterdir())


def test_pseudonyms_depend_on_key_kind_and_person_only() -> None:
    assert pseudonym(KEY, "1234567") == pseudonym(KEY, "1234567") != pseudonym(KEY, "1234568")
    assert pseudonym(KEY, "1234567") != pseudonym(bytes(32), "1234567")
    assert keyed_digest(KEY, "a", "b:c") != keyed_digest(KEY, "a:b", "c")
    assert "1234567" not in pseudonym(KEY, "1234567")
    assert pseudonym(KEY, "1234567") == "33ca7218d4c7e2d953d5ac922127b54e"


def test_names_that_are_not_utf8_have_pseudonyms_too() -> None:
    names = ["b", "b\xff", *(os.fsdecode(name) for name in (b"b\xff", b"b\xfe", b"b\xff\xff"))]
    assert len({pseudonym(KEY, name) for name in names}) == len(names)
    listed = [Recording(patient=name, visit=name, kind="ecg", path=Path(name)) for name in names]
    visits = pair_visits(listed, key=KEY)
    assert [visit.pseudonym for visit in visits] == sorted(pseudonym(KEY, name) for name in names)
    assert list(recording_keys(listed, key=KEY).values()) == listed


def test_splits_keep_their_shares_and_nobody_moves() -> None:
    people = [pseudonym(KEY, str(n)) for n in range(4000)]
    sides = [split_of(KEY, p, validation=0.1, test=0.2) for p in people]
    assert np.bincount(sides, minlength=3) / 4000 == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    assert sides == [split_of(KEY, p, validation=0.1, test=0.2) for p in people]
    without = [split_of(KEY, p, validation=0.0, test=0.2) for p in people]
    assert SPLITS.index("validation") not in without
    assert [side == 2 for side in without] == [side == 2 for side in sides]
    assert {split_of(KEY, p, validation=0.0, test=0.0) for p in people} == {0}


def test_the_leakage_checker_fails_on_a_split_by_ecg_and_passes_on_one_by_patient() -> None:
    patient = np.repeat(np.arange(50), 4)
    check_leakage(patient, np.repeat(np.arange(50) % 3, 4))
    check_leakage(np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(DataError, match="more than one split"):
        check_leakage(patient, np.random.default_rng(0).integers(0, 3, 200))
    with pytest.raises(DataError, match="length"):
        check_leakage(patient, patient[1:])


def test_pairs_need_the_same_person_and_the_same_visit() -> None:
    def recording(patient: str, visit: str, kind: str, name: str) -> Recording:
        return Recording(patient=patient, visit=visit, kind=kind, path=Path(name))  # type: ignore[arg-type]

    listed = [
        recording("A", "10", "ecg", "z"), recording("A", "9", "ecg", "b"), recording("A", "9", "ecg", "a"),
        recording("A", "9", "cine", "c"), recording("B", "9", "cine", "d"), recording("A", "9", "ecg", "a"),
    ]  # fmt: skip
    visits = pair_visits(listed, key=KEY)
    assert visits == pair_visits(listed[::-1], key=KEY)
    assert [v.pseudonym for v in visits] == sorted(v.pseudonym for v in visits)
    of_a = [v for v in visits if v.patient == "A"]
    assert [v.visit for v in of_a] == ["9", "10"]
    assert [r.path.name for r in of_a[0].ecgs] == ["a", "b"] and len(of_a[0].cines) == 1 and not of_a[1].cines


def cohort(*, patients: list[int], site: str) -> Cohort:
    rows = len(patients)
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=np.full(12 * 3 * rows, len(site), np.int16),
        ecg_offsets=np.arange(rows) * 3,
        ecg_samples=np.full(rows, 3),
        cines=np.zeros((1, 50, 96, 96), np.uint8),
        row_patient=np.array(patients),
        row_split=np.zeros(rows, np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.array([0] + [-1] * (rows - 1)),
        phenotypes=np.full((rows, 82), np.nan, np.float32),
        diseases=np.full((rows, 8), np.nan, np.float32),
        refusals={"ecg-flat": 1},
    )


def test_concatenate_keeps_people_and_recordings_apart() -> None:
    joined = concatenate(
        [cohort(patients=[0, 0, 1], site="a"), cohort(patients=[0, 1, 1], site="bb")], site="all"
    )
    assert joined.row_patient.tolist() == [0, 0, 1, 2, 3, 3] and joined.patients(np.arange(6)) == 4
    assert joined.row_cine.tolist() == [0, -1, -1, 1, -1, -1] and joined.row_ecg.tolist() == list(range(6))
    assert joined.ecg_mv(2)[0, 0] == np.float32(0.001) and joined.ecg_mv(3)[0, 0] == np.float32(0.002)
    assert joined.refusals == {"ecg-flat": 2}
