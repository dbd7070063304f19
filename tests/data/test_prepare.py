"""Prepare and cache: the whole walk from a hospital's folders to a cohort, and what makes a cache void."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import cohort_folder, open_cache, summary
from cardionets_core.data.cache_writer import CacheWriter, sole_writer
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.fingerprint import fingerprint
from cardionets_core.data.prepare import prepare
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.readers.cardiosoft_xml import read_cardiosoft_xml
from cardionets_core.data.records import Person
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import (
    CacheForeignError,
    CacheStaleError,
    DataError,
    FolderMissingError,
    RecordRefused,
)

KEY = bytes(range(32))
RATE_HZ = 250
NANO = InputShape(ecg_samples=750, cine_frames=8, cine_pixels=32)


def site(folder: Path, source: dict[str, Any], *, name: str = "here", **settings: Any) -> SiteConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key").write_bytes(KEY)
    return SiteConfig(
        site=name,
        source=source,
        policy={"phases": ["ecg_mae"]},
        prepare=settings,
        folders={"cache": folder / "cache", "state": folder / "state", "secret": folder / "key"},
    )


def write_ecg(path: Path, *, seed: int, seconds: float = 10.0, scale: float = 1.0) -> None:
    """A CSV in uV whose limb leads obey Einthoven."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE_HZ * seconds)) / RATE_HZ
    beat = np.exp(-0.5 * (((t % 0.8) - 0.4) / 0.02) ** 2)
    one, two, *chest = (rng.normal(0.8, 0.2, 8)[:, None] * beat + 0.01 * rng.normal(size=(8, len(t)))) * 1000
    rows = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest]
    lines = ["I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"]
    lines += [",".join(f"{value * scale:.1f}" for value in sample) for sample in np.stack(rows).T]
    path.write_text("\n".join(lines) + "\n")


def write_cine(path: Path, *, frames: int = 25) -> None:
    import nibabel as nib

    y, x = np.mgrid[-30:30, -30:30]
    radius = 12 - 3 * np.cos(2 * np.pi * np.arange(frames) / frames)
    data = (np.hypot(y, x)[:, :, None] < radius).astype(np.int16) * 200 + 5
    image = nib.Nifti1Image(data[:, :, None, :], np.eye(4))
    image.header.set_zooms((2.0, 2.0, 8.0, 30.0))
    image.to_filename(path)


def hospital(folder: Path) -> dict[str, Any]:
    """Six people: A has two visits and two cines, E a cine alone; two recordings cannot be used."""
    for name in ("ecg", "cmr"):
        (folder / name).mkdir(parents=True)
    lines = ["patient,visit,ecg,cine"]
    for seed, (person, visit) in enumerate(
        [("PID-A", 1), ("PID-A", 2), ("PID-B", 1), ("PID-C", 1), ("PID-D", 1)]
    ):
        write_ecg(folder / "ecg" / f"{person}_{visit}.csv", seed=seed, seconds=4 if person == "PID-D" else 10)
        lines.append(f"{person},{visit},{person}_{visit}.csv,{person}.nii.gz" if person in ("PID-B", "PID-C")
                     else f"{person},{visit},{person}_{visit}.csv,{person}_{visit}.nii.gz")  # fmt: skip
    lines.append("PID-E,1,,PID-E.nii.gz")
    for name in ("PID-A_1", "PID-A_2", "PID-B", "PID-E", "PID-D_1"):
        write_cine(folder / "cmr" / f"{name}.nii.gz")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    (folder / "phenotypes.csv").write_text("patient,visit,f24100,f24103\nPID-A,1,150,60\nPID-B,1,,55\n")
    (folder / "diagnoses.csv").write_text("patient,icd10\nPID-A,I25.1\nPID-B,Z00\n")
    ecg = {"format": "csv", "folder": folder / "ecg", "rate_hz": RATE_HZ, "unit": "uV"}
    return {"kind": "local_site", "ecg": ecg, "cmr": {"format": "nifti", "folder": folder / "cmr"},
            "index": folder / "index.csv", "phenotypes": folder / "phenotypes.csv",
            "diagnoses": folder / "diagnoses.csv"}  # fmt: skip


def content(config: SiteConfig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(cohort_folder(config).iterdir())}


def test_a_hospital_becomes_a_cohort(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    config = site(tmp_path / "s", hospital(tmp_path / "h"), split={"validation": 0, "test": 0})
    cohort = prepare(config, progress=lambda stage, done, total: told.append((stage, done, total)))
    assert cohort.refusals == {"ecg-too-short": 1, "cine-file-missing": 1}
    train = summary(cohort)["train"]
    assert train == {"patients": 5, "recordings": 4, "cines": 5, "pairs": 3, "phenotype_rows": 2}
    assert told[0][0] == "list" and told[-1] == ("read", 11, 11)
    # PID-A's two visits follow one another, each with its own cine; PID-D and PID-E have a cine alone.
    two = np.flatnonzero(np.bincount(cohort.row_patient) == 2)
    (rows,) = [np.flatnonzero(cohort.row_patient == patient) for patient in two]
    assert np.diff(rows) == 1 and (cohort.row_cine[rows] >= 0).all()
    assert cohort.phenotypes[rows, 0].tolist()[0] == 150 and np.isnan(cohort.phenotypes[rows[1]]).all()
    assert cohort.diseases[rows, 0].tolist() == [1, 1] and np.isnan(cohort.diseases[rows, 1:]).all()
    assert (cohort.row_ecg == -1).sum() == 2
    rows = cohort.rows(frozenset({"ecg", "cine"}), "train", NANO)
    batch = cohort.batch(rows, keys=frozenset({"ecg", "cine", "phenotypes"}), shape=NANO, window=0)
    assert batch.ecg_BLT is not None and batch.ecg_BLT.shape == (3, 12, 750)
    assert batch.cine_BFYX is not None and batch.cine_BFYX.shape == (3, 8, 32, 32)


def test_what_is_packed_is_the_filtered_recording(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    file = shared_data / "replicas" / "ukb" / "20205" / "9000022_20205_2_0.xml"
    shutil.copy(file, folder)
    cohort = prepare(site(tmp_path / "s", {"kind": "uk_biobank", "ecg": folder}))
    expected = check_ecg(read_cardiosoft_xml(file)).signal_mv
    np.testing.assert_allclose(cohort.ecg_mv(0), expected, atol=0.00051)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SiteConfig, Cohort]:
    folder = tmp_path_factory.mktemp("made")
    config = site(folder / "s", hospital(folder / "h"))
    return config, prepare(config)


@pytest.fixture
def copy(made: tuple[SiteConfig, Cohort], tmp_path: Path) -> SiteConfig:
    """The prepared hospital again, free to be spoilt; times of change are kept."""
    origin = made[0].folders.secret.parent.parent
    shutil.copytree(origin, tmp_path / "copy")
    text = json.dumps(made[0].model_dump(mode="json")).replace(str(origin), str(tmp_path / "copy"))
    return SiteConfig.model_validate(json.loads(text))


def test_two_prepares_and_any_number_of_workers_give_the_same_bytes(
    made: tuple[SiteConfig, Cohort], copy: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(copy)
    assert open_cache(copy).digest == made[1].digest
    shutil.rmtree(cohort_folder(copy))
    assert prepare(copy).digest == made[1].digest and content(copy) == before
    shutil.rmtree(cohort_folder(copy))
    monkeypatch.setattr("cardionets_core.data.prepare._WORTH_A_PROCESS", 0)
    many = copy.model_copy(update={"prepare": copy.prepare.model_copy(update={"workers": 2})})
    assert prepare(many).digest == made[1].digest and content(copy) == before


def test_an_up_to_date_cache_is_opened_not_made(copy: SiteConfig) -> None:
    before = (cohort_folder(copy) / "ecg.npy").stat().st_ino
    prepare(copy)
    assert (cohort_folder(copy) / "ecg.npy").stat().st_ino == before
    assert sorted(path.name for path in copy.folders.cache.iterdir()) == ["cohort", "cohort.lock"]


def test_changed_files_settings_or_code_make_a_cache_stale(
    copy: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = (cohort_folder(copy) / "ecg.npy").stat().st_ino
    index = copy.source.index  # type: ignore[union-attr]
    assert index is not None
    for path in (index, index.parent / "ecg" / "PID-C_1.csv"):
        state = path.stat()
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        with pytest.raises(CacheStaleError, match="files"):
            open_cache(copy)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    open_cache(copy)
    split = copy.prepare.split.model_copy(update={"test": 0.5})
    other = copy.model_copy(update={"prepare": copy.prepare.model_copy(update={"split": split})})
    with pytest.raises(CacheStaleError, match="settings"):
        open_cache(other, check="quick")
    with monkeypatch.context() as patch:
        patch.setattr("cardionets_core.data.fingerprint.code_digest", lambda: "newer")
        with pytest.raises(CacheStaleError, match="code"):
            open_cache(copy)
    (index.parent / "ecg" / "PID-C_1.csv").unlink()
    rebuilt = prepare(copy)
    assert (cohort_folder(copy) / "ecg.npy").stat().st_ino != inode and rebuilt.refusals[
        "ecg-file-missing"
    ] == 1
    shutil.rmtree(cohort_folder(copy))
    with pytest.raises(CacheStaleError, match="no cache"):
        open_cache(copy)


@pytest.mark.parametrize(
    "name", ["ecg.npy", "ecg_samples.npy", "cines.npy", "phenotypes.npy", "rows.parquet"]
)
def test_torn_arrays_are_noticed(copy: SiteConfig, name: str) -> None:
    path = cohort_folder(copy) / name
    whole = path.read_bytes()
    for torn in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole[:50], b"", None):
        path.unlink(missing_ok=True)
        if torn is not None:
            path.write_bytes(torn)
        with pytest.raises(CacheForeignError, match="torn"):
            open_cache(copy)
    prepare(copy)
    assert path.read_bytes() == whole


def test_torn_and_foreign_manifests_are_noticed(copy: SiteConfig) -> None:
    path = cohort_folder(copy) / "manifest.json"
    manifest = json.loads(path.read_text())
    for text in ("", "[]", "{}", path.read_text()[:-5], json.dumps(manifest | {"arrays": 3})):
        path.write_text(text)
        with pytest.raises(CacheForeignError, match="torn"):
            open_cache(copy)
    path.write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(CacheStaleError, match="layout"):
        open_cache(copy)
    path.write_text(json.dumps(manifest | {"site": "there"}))
    for opening in (open_cache, prepare):
        with pytest.raises(CacheForeignError, match="there"):
            opening(copy)
    path.write_text(json.dumps(manifest))
    copy.folders.secret.write_bytes(bytes(32))
    with pytest.raises(CacheForeignError, match="key"):
        open_cache(copy, check="quick")
    copy.folders.secret.unlink()
    with pytest.raises(DataError, match="key"):
        open_cache(copy)


def test_no_identifier_is_in_the_cache_and_withdrawn_people_are_not(
    shared_data: Path, tmp_path: Path
) -> None:
    replicas = shared_data / "replicas"
    ukb = {
        "kind": "uk_biobank",
        "ecg": replicas / "ukb" / "20205",
        "withdrawals": replicas / "ukb" / "tabular",
        "table": replicas / "ukb" / "tabular" / "ukbconv_r.tab",
    }
    mimic = {"kind": "mimic_iv_ecg", "root": replicas / "mimic_iv_ecg"}
    for name, source in (("ukb", ukb), ("mimic", mimic)):
        config = site(tmp_path / name, source, name=name)
        cohort = prepare(config)
        everything = b"".join(content(config).values())
        for token in (b"90000", b"4900000", b"20205", b"replicas", b"9999999", b"2177", b"2018"):
            found = [
                n
                for n, data in content(config).items()
                if n.endswith((".json", ".parquet")) and token in data
            ]
            assert not found, (token, found)
        for identifier in (*range(9000011, 9000067, 11), 90000011, 90000024, 90010037, 90010048, 90020059):
            assert str(identifier).encode() not in everything
            assert identifier.to_bytes(8, "little") not in everything
        if name == "ukb":
            assert cohort.refusals == {"withdrawn": 1} and len(np.unique(cohort.row_patient)) == 4
            assert int((~np.isnan(cohort.phenotypes[:, 0])).sum()) == 3
        else:
            assert (
                len(np.unique(cohort.row_patient)) == 5 and len(cohort.row_ecg) == 8 and not cohort.refusals
            )


def test_a_new_withdrawal_empties_the_cache_of_that_person(shared_data: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "w1_20230101.csv").write_text("")
    config = site(
        tmp_path / "s",
        {"kind": "uk_biobank", "ecg": shared_data / "replicas/ukb/20205", "withdrawals": lists},
    )
    assert len(prepare(config).row_ecg) == 6
    (lists / "w1_20240101.csv").write_text("9000011\n")
    with pytest.raises(CacheStaleError):
        open_cache(config)
    cohort = prepare(config)
    assert len(cohort.row_ecg) == 4 and cohort.refusals == {"withdrawn": 2}


def test_missing_folders_and_an_empty_yield(tmp_path: Path) -> None:
    with pytest.raises(FolderMissingError, match=r"source\.ecg"):
        prepare(site(tmp_path / "s", {"kind": "uk_biobank", "ecg": tmp_path / "none"}))
    folder = tmp_path / "ecg"
    folder.mkdir()
    write_ecg(folder / "a.csv", seed=0, scale=1000)
    ecg = {"format": "csv", "folder": folder, "rate_hz": RATE_HZ, "unit": "uV"}
    cohort = prepare(site(tmp_path / "s", {"kind": "local_site", "ecg": ecg}))
    assert cohort.refusals == {"ecg-amplitude": 1} and len(cohort.row_ecg) == 0
    assert summary(cohort)["train"]["patients"] == 0
    empty = cohort.batch(
        np.zeros(0, int), keys=frozenset({"ecg", "cine", "phenotypes"}), shape=NANO, window=0
    )
    assert empty.size == 0 and len(cohort.rows(frozenset({"ecg"}), "train", NANO)) == 0


def test_a_reader_that_breaks_costs_one_record_and_is_counted(
    copy: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, **_: Any) -> None:
        raise RecordRefused("ecg-flat") if "PID-C" in path.name else ZeroDivisionError(path.name)

    shutil.rmtree(cohort_folder(copy))
    monkeypatch.setattr("cardionets_core.data.sources.local_site.read_csv_ecg", broken)
    assert prepare(copy).refusals == {"cine-file-missing": 1, "ecg-flat": 1, "reader-failed": 4}


def test_one_writer_at_a_time_and_nothing_is_left_of_a_killed_run(copy: SiteConfig) -> None:
    folder = cohort_folder(copy)
    with sole_writer(folder), pytest.raises(DataError, match="another run"):
        prepare(copy)
    (folder.parent / "cohort.new-killed").mkdir()
    prepare(copy)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["cohort", "cohort.lock"]


def test_a_person_in_two_splits_is_never_committed(copy: SiteConfig, tmp_path: Path) -> None:
    state = fingerprint(copy, key=KEY, source=None)
    with CacheWriter(tmp_path / "leaky") as writer:
        for split in (0, 2):
            writer.add_row(pseudonym="p", split=split, ecg=-1, cine=-1, person=Person())
        with pytest.raises(DataError, match="more than one split"):
            writer.commit(site="here", fingerprint=state, listed=2, refusals={})
    assert not (tmp_path / "leaky").exists() and not list(tmp_path.glob("leaky*"))
