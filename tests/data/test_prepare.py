"""Prepare and cache: the whole walk from a hospital's folders to a cohort, and what makes a cache void."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data import reading
from cardionets_core.data.cache import cohort_folder, open_cache, read_manifest, record_table, summary
from cardionets_core.data.cache_writer import sole_writer, write_publication
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.examples import refused_examples
from cardionets_core.data.fingerprint import fingerprint
from cardionets_core.data.manifest import SCHEMA, store_folder
from cardionets_core.data.prepare import prepare
from cardionets_core.data.publish import Draft
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.readers.cardiosoft_xml import read_cardiosoft_xml
from cardionets_core.data.records import LABELS, EcgRecord, Person
from cardionets_core.data.sources import open_source
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
    cmr = {"format": "nifti", "folder": folder / "cmr", "view": "4ch"}
    return {"kind": "local_site", "ecg": ecg, "cmr": cmr,
            "index": folder / "index.csv", "phenotypes": folder / "phenotypes.csv",
            "diagnoses": folder / "diagnoses.csv"}  # fmt: skip


def content(config: SiteConfig) -> dict[str, bytes]:
    """Every file of the cache."""
    files = sorted(path for path in config.folders.cache.rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in files}


def assert_equal(one: Cohort, other: Cohort) -> None:
    """Equal in everything that training sees, wherever it lies."""
    assert one.digest == other.digest and one.refusals == other.refusals
    for name in ("row_patient", "row_split", "row_ecg", "row_age_years", "row_sex", "ecg_samples",
                 "phenotypes", "diseases"):  # fmt: skip
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for record in range(len(one.ecg_samples)):
        np.testing.assert_array_equal(one.ecg_mv(record), other.ecg_mv(record))
    for of_one, of_other in zip((one.row_cine, *one.row_views.values()),
                                (other.row_cine, *other.row_views.values()), strict=True):  # fmt: skip
        np.testing.assert_array_equal(of_one >= 0, of_other >= 0)
        held = of_one >= 0
        np.testing.assert_array_equal(one.cines[of_one[held]], other.cines[of_other[held]])


def test_a_hospital_becomes_a_cohort(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    config = site(tmp_path / "s", hospital(tmp_path / "h"), split={"validation": 0, "test": 0})
    cohort = prepare(config, progress=lambda stage, done, total: told.append((stage, done, total)))
    assert cohort.refusals == {"ecg-too-short": 1, "cine-file-missing": 1}
    train = summary(cohort)["train"]
    assert train == {"patients": 5, "recordings": 4, "cines": 5, "pairs": 3, "phenotype_rows": 2, "views": {}}
    assert told[0] == ("list", 11, 11) and told[1] == ("read", 0, 11)
    assert told[2:13] == [("read", done, 11) for done in range(1, 12)]
    assert told[13:] == [("publish", 0, 11), ("publish", 11, 11)]
    # PID-A's two visits follow one another, each with its own cine; PID-D and PID-E have a cine alone.
    two = np.flatnonzero(np.bincount(cohort.row_patient) == 2)
    (rows,) = [np.flatnonzero(cohort.row_patient == patient) for patient in two]
    assert np.diff(rows) == 1 and (cohort.row_cine[rows] >= 0).all()
    assert cohort.phenotypes[rows, 0].tolist()[0] == 150 and np.isnan(cohort.phenotypes[rows[1]]).all()
    assert cohort.diseases.shape == (len(cohort.row_patient), len(LABELS))
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


def without_sync_marks(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files, without the lines of the store's log that say that all before them is on the disk."""
    lines = files["log.jsonl"].splitlines(keepends=True)
    return {**files, "log.jsonl": b"".join(line for line in lines if b'"synced"' not in line)}


def test_two_prepares_and_any_number_of_workers_give_the_same_cohort(
    made: tuple[SiteConfig, Cohort], copy: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_equal(open_cache(copy), made[1])
    before = without_sync_marks(content(copy))
    shutil.rmtree(copy.folders.cache)
    assert_equal(prepare(copy), made[1])
    # In one process even byte for byte, but for when a slow machine has flushed.
    assert without_sync_marks(content(copy)) == before
    shutil.rmtree(copy.folders.cache)
    monkeypatch.setattr("cardionets_core.data.reading.WORTH_SECONDS", 0)
    monkeypatch.setattr("cardionets_core.data.reading.RECORDINGS_AT_ONCE", 2)
    many = copy.model_copy(update={"prepare": copy.prepare.model_copy(update={"workers": 2})})
    assert_equal(prepare(many), made[1])
    open_cache(copy)


def test_an_up_to_date_cache_is_opened_not_made(copy: SiteConfig) -> None:
    before = content(copy)
    inode = (cohort_folder(copy) / "manifest.json").stat().st_ino
    (copy.folders.cache / "report").mkdir()
    prepare(copy)
    assert (cohort_folder(copy) / "manifest.json").stat().st_ino == inode and content(copy) == before
    assert sorted(path.name for path in copy.folders.cache.iterdir()) == [
        "cohort", "cohort.lock", "report", "store",
    ]  # fmt: skip


def test_only_what_is_new_or_changed_is_read_and_the_cohort_is_as_if_made_at_once(
    copy: SiteConfig, decoded: list[str], tmp_path: Path
) -> None:
    (copy.folders.cache / "report").mkdir()
    index = index_of(copy)
    folder = index.parent
    write_ecg(folder / "ecg" / "new.csv", seed=9)
    write_ecg(folder / "ecg" / "PID-B_1.csv", seed=10)
    (folder / "cmr" / "PID-E.nii.gz").unlink()
    index.write_text(index.read_text() + "PID-F,1,new.csv,\n")
    told: list[tuple[str, int, int]] = []
    grown = prepare(copy, progress=lambda *what: told.append(what))
    assert sorted(decoded) == ["PID-B_1.csv", "PID-E.nii.gz", "new.csv"]
    assert told[:2] == [("list", 12, 12), ("read", 9, 12)] and not (copy.folders.cache / "report").exists()
    fresh = copy.model_copy(update={"folders": copy.folders.model_copy(update={"cache": tmp_path / "fresh"})})
    assert_equal(prepare(fresh), grown)
    assert grown.ecg_offsets.tolist() != open_cache(fresh).ecg_offsets.tolist()
    assert_equal(open_cache(copy), grown)


def test_a_file_of_a_new_time_and_the_same_bytes_is_not_decoded(
    copy: SiteConfig, made: tuple[SiteConfig, Cohort], decoded: list[str]
) -> None:
    for path in (index_of(copy).parent / "ecg").iterdir():
        os.utime(path)
    with pytest.raises(CacheStaleError, match="files"):
        open_cache(copy)
    assert_equal(prepare(copy), made[1])
    assert decoded == [] and open_cache(copy).digest == made[1].digest


def test_tables_and_shares_make_a_new_publication_and_nothing_is_decoded(
    copy: SiteConfig, decoded: list[str]
) -> None:
    phenotypes = copy.source.phenotypes  # type: ignore[union-attr]
    assert phenotypes is not None
    phenotypes.write_text("patient,visit,f24100,f24103\nPID-A,1,151,60\n")
    cohort = prepare(copy)
    assert np.nanmax(cohort.phenotypes[:, 0]) == 151 and np.isfinite(cohort.phenotypes).sum() == 2
    split = copy.prepare.split.model_copy(update={"test": 0.9, "validation": 0.0})
    other = copy.model_copy(update={"prepare": copy.prepare.model_copy(update={"split": split})})
    assert (prepare(other).row_split == 2).sum() > (cohort.row_split == 2).sum()
    assert decoded == []


def index_of(config: SiteConfig) -> Path:
    index = config.source.index  # type: ignore[union-attr]
    assert index is not None
    return index


def test_changed_files_settings_or_code_make_a_cache_stale(
    copy: SiteConfig, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    index = index_of(copy)
    for path in (index, index.parent / "ecg" / "PID-C_1.csv"):
        state = path.stat()
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        with pytest.raises(CacheStaleError, match="files"):
            open_cache(copy)
        open_cache(copy, check="quick")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    open_cache(copy)
    split = copy.prepare.split.model_copy(update={"test": 0.5})
    for changes in ({"split": split}, {"views": ("4ch", "2ch")}):
        other = copy.model_copy(update={"prepare": copy.prepare.model_copy(update=changes)})
        with pytest.raises(CacheStaleError, match="settings"):
            open_cache(other, check="quick")
    with monkeypatch.context() as patch:
        patch.setattr("cardionets_core.data.fingerprint.code_digest", lambda: "newer")
        with pytest.raises(CacheStaleError, match="code"):
            open_cache(copy)
        prepare(copy)
        assert len(decoded) == 11
    (index.parent / "ecg" / "PID-C_1.csv").unlink()
    assert prepare(copy).refusals["ecg-file-missing"] == 1
    shutil.rmtree(cohort_folder(copy))
    with pytest.raises(CacheStaleError, match="no cache"):
        open_cache(copy)


def test_a_changed_listing_of_the_same_files_reads_what_moved(copy: SiteConfig, decoded: list[str]) -> None:
    """A file that the index gives to somebody else is another recording: nothing of the old one is kept."""
    index = index_of(copy)
    index.write_text(index.read_text().replace("PID-C,1,PID-C_1.csv", "PID-G,1,PID-C_1.csv"))
    cohort = prepare(copy)
    assert (
        "PID-C_1.csv" in decoded
        and len(decoded) <= 2
        and cohort.patients(np.arange(len(cohort.row_ecg))) == 5
    )


@pytest.mark.parametrize(
    "name", ["ecg-1.bin", "cines-1.bin", "signatures-1.bin", "phenotypes.npy", "diseases.npy", "rows.parquet",
             "records.parquet"]
)  # fmt: skip
def test_torn_files_are_noticed_and_mended(
    copy: SiteConfig, made: tuple[SiteConfig, Cohort], name: str, decoded: list[str]
) -> None:
    folder = store_folder(copy) if name.endswith(".bin") else cohort_folder(copy)
    path = folder / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for torn in (whole[:-1], changed, whole[:50], b"", None):
        path.unlink(missing_ok=True)
        if torn is not None:
            path.write_bytes(torn)
        with pytest.raises(CacheForeignError, match="torn"):
            open_cache(copy)
    path.write_bytes(changed)
    assert_equal(prepare(copy), made[1])
    assert len(decoded) == (1 if folder == store_folder(copy) else 0)
    open_cache(copy)
    if folder == store_folder(copy):
        (folder / "ecg-1.bin").unlink()
        (folder / "log.jsonl").write_bytes(b"torn")
        assert_equal(prepare(copy), made[1])


def test_torn_and_foreign_manifests_are_noticed(copy: SiteConfig) -> None:
    path = cohort_folder(copy) / "manifest.json"
    manifest = json.loads(path.read_text())
    elsewhere = {"files": {"ecg": ["../../key", 8]}}
    for text in ("", "[]", "{}", path.read_text()[:-5], json.dumps(manifest | {"files": 3}),
                 json.dumps(manifest | elsewhere)):  # fmt: skip
        path.write_text(text)
        with pytest.raises(CacheForeignError, match="torn"):
            open_cache(copy)
    path.write_text(json.dumps(manifest | {"schema": SCHEMA - 1}))
    with pytest.raises(CacheStaleError, match="layout"):
        open_cache(copy)
    path.write_text(json.dumps(manifest | {"site": "there"}))
    for opening in (open_cache, prepare):
        with pytest.raises(CacheForeignError, match="there"):
            opening(copy)
    path.write_text(json.dumps(manifest))
    path.unlink()
    with pytest.raises(CacheForeignError, match="here"):
        prepare(copy.model_copy(update={"site": "there"}))
    path.write_text(json.dumps(manifest))
    copy.folders.secret.write_bytes(bytes(32))
    with pytest.raises(CacheForeignError, match="key"):
        open_cache(copy, check="quick")
    copy.folders.secret.unlink()
    with pytest.raises(DataError, match="key"):
        open_cache(copy)


def test_a_cache_of_another_key_is_refused_and_left_as_it_is(
    copy: SiteConfig, made: tuple[SiteConfig, Cohort]
) -> None:
    secret, log = copy.folders.secret, store_folder(copy) / "log.jsonl"
    key, lines, before = secret.read_bytes(), log.read_bytes(), content(copy)
    for text in (lines, b"torn"):  # where the log cannot be read, the manifest tells
        log.write_bytes(text)
        for other in (bytes(32), None):
            secret.unlink()
            if other is not None:
                secret.write_bytes(other)
            with pytest.raises(CacheForeignError, match="another key") as caught:
                prepare(copy)
            assert "backup" in caught.value.remedy and str(copy.folders.cache) in caught.value.remedy
            assert content(copy) == {**before, log.name: text} and secret.exists() == (other is not None)
            secret.write_bytes(key)
    log.write_bytes(lines)
    assert_equal(prepare(copy), made[1])
    secret.write_bytes(bytes(32))
    shutil.rmtree(copy.folders.cache)
    assert len(prepare(copy).row_ecg) == 6 and read_manifest(copy).fingerprint.key not in str(before)
    # The log vouches for itself: a manifest with a flipped digit is torn, and no matter of another key.
    path = cohort_folder(copy) / "manifest.json"
    for name in ("key", "content_digest"):
        start = path.read_text().index(f'"{name}":"') + len(name) + 4
        spoilt = bytearray(path.read_bytes())
        spoilt[start] = ord("0") if spoilt[start] != ord("0") else ord("1")
        path.write_bytes(spoilt)
        with pytest.raises(CacheForeignError, match="torn"):
            open_cache(copy, check="quick")
        prepare(copy)
        open_cache(copy)


DAMAGE = {
    "one byte short": lambda whole: whole[:-1],
    "some bytes short": lambda whole: whole[:-1000],
    "half": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "garbage behind": lambda whole: whole + bytes(range(1, 200)),
    "flipped": lambda whole: whole[: len(whole) // 2] + bytes(255 - b for b in whole[len(whole) // 2 :]),
}


@pytest.mark.parametrize("changed_too", [False, True])
@pytest.mark.parametrize(
    "name", ["store/ecg-1.bin", "store/cines-1.bin", "store/signatures-1.bin", "store/log.jsonl",
             "cohort/manifest.json", "cohort/rows.parquet", "cohort/records.parquet"]
)  # fmt: skip
def test_one_prepare_mends_whatever_was_damaged(copy: SiteConfig, name: str, *, changed_too: bool) -> None:
    """Also where the site's tables changed meanwhile, so that nobody looked at the bytes before."""
    phenotypes = copy.source.phenotypes  # type: ignore[union-attr]
    assert phenotypes is not None
    digest, file, whole = open_cache(copy).digest, Path(name), b""
    for number, damage in enumerate([*DAMAGE.values(), None, os.mkfifo, Path.mkdir, "nowhere"]):
        path = copy.folders.cache / name
        # A log that is no file is noticed only when there is something to be written.
        whole = path.read_bytes() if path.is_file() else whole
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        if damage == "nowhere":
            path.symlink_to(copy.folders.cache / "nowhere")
        elif damage in (os.mkfifo, Path.mkdir):
            damage(path)  # type: ignore[operator]
        elif damage is not None:
            path.write_bytes(damage(whole))  # type: ignore[operator]
        if changed_too:
            phenotypes.write_text(phenotypes.read_text() + "\n" * number)
        if damage is Path.mkdir and file.parent.name == "store" and (changed_too or file.suffix == ".bin"):
            with pytest.raises(DataError, match="a folder lies"):
                prepare(copy)
            path.rmdir()
        assert prepare(copy).digest == digest, damage
        assert open_cache(copy, check="full").digest == digest
        manifest = read_manifest(copy)
        for stored, length in manifest.files.values():
            assert (store_folder(copy) / stored).stat().st_size >= length
        assert not (copy.folders.cache / "nowhere").exists()


def test_a_recording_that_is_too_large_is_never_read_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    folder = tmp_path / "ecg"
    folder.mkdir()
    for seed in range(2):
        write_ecg(folder / f"{seed}.csv", seed=seed)
    large = folder / "large.csv"
    large.touch()
    os.truncate(large, 3_000_000_000)  # sparse: costs no disk
    hashed: list[str] = []
    real = reading.content_digest

    def watching(source: Any, recording: Any, **options: Any) -> str:
        hashed.append(recording.path.name)
        return real(source, recording, **options)

    monkeypatch.setattr(reading, "content_digest", watching)
    ecg = {"format": "csv", "folder": folder, "rate_hz": RATE_HZ, "unit": "uV"}
    config = site(tmp_path / "s", {"kind": "local_site", "ecg": ecg})
    first = prepare(config)
    assert first.refusals == {"ecg-too-large": 1} and len(first.ecg_samples) == 2
    assert sorted(hashed) == ["0.csv", "1.csv"] and len(decoded) == 3
    for path in folder.iterdir():
        os.utime(path)
    decoded.clear()
    assert prepare(config).digest == first.digest and decoded == ["large.csv"]
    assert sorted(hashed) == ["0.csv", "0.csv", "1.csv", "1.csv"]
    assert read_manifest(config).counts["unread"] == 0
    # Small enough to be compared, but known to be refused: its bytes are not read either.
    os.truncate(large, 200_000_000)
    prepare(config)
    hashed.clear()
    os.utime(large)
    prepare(config)
    assert hashed == []
    write_ecg(large, seed=2)
    assert len(prepare(config).ecg_samples) == 3 and open_cache(config).refusals == {}


def test_a_file_that_changes_while_it_is_read_is_read_again(
    copy: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of its new bytes must not vouch for what was packed of the old ones."""
    changing = index_of(copy).parent / "ecg" / "PID-B_1.csv"
    real = reading.content_digest

    def late(source: Any, recording: Any, **options: Any) -> str:
        if recording.path == changing:
            write_ecg(changing, seed=77)
        return real(source, recording, **options)

    shutil.rmtree(copy.folders.cache)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "content_digest", late)
        old = prepare(copy)
    assert read_manifest(copy).counts["unread"] == 1
    new = prepare(copy)
    assert new.digest != old.digest and read_manifest(copy).counts["unread"] == 0
    shutil.rmtree(copy.folders.cache)
    assert prepare(copy).digest == new.digest


def test_names_that_are_not_utf8_are_people_like_others(tmp_path: Path) -> None:
    folder = tmp_path / "ecg"
    folder.mkdir()
    for seed, name in enumerate((b"a.csv", b"b\xff.csv", b"b\xfe.csv")):
        write_ecg(folder / os.fsdecode(name), seed=seed)
    ecg = {"format": "csv", "folder": folder, "rate_hz": RATE_HZ, "unit": "uV"}
    config = site(tmp_path / "s", {"kind": "local_site", "ecg": ecg})
    cohort = prepare(config)
    assert cohort.patients(np.arange(3)) == 3 and cohort.refusals == {}
    assert open_cache(config).digest == cohort.digest and len(record_table(config)) == 3


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
        texts = {
            n: data for n, data in content(config).items() if n.endswith((".json", ".jsonl", ".parquet"))
        }
        for token in (b"replicas", b".xml", b".hea", b".dat", b"files/"):
            assert not [n for n, data in texts.items() if token in data], token
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
    assert cohort.refusals == {"ecg-gain": 1} and len(cohort.row_ecg) == 0
    assert summary(cohort)["train"]["patients"] == 0
    empty = cohort.batch(
        np.zeros(0, int), keys=frozenset({"ecg", "cine", "phenotypes"}), shape=NANO, window=0
    )
    assert empty.size == 0 and len(cohort.rows(frozenset({"ecg"}), "train", NANO)) == 0


def test_a_reader_that_breaks_costs_one_record_and_is_counted(
    copy: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, recording: Any) -> None:
        name = recording.path.name
        raise RecordRefused("ecg-flat") if "PID-C" in name else ZeroDivisionError(name)

    shutil.rmtree(copy.folders.cache)
    monkeypatch.setattr("cardionets_core.data.sources.local_site.LocalSiteSource.read", broken)
    assert prepare(copy).refusals == {"ecg-flat": 2, "reader-failed": 9}


def test_files_that_cannot_be_read_are_tried_again(
    copy: SiteConfig, made: tuple[SiteConfig, Cohort], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that fails for a moment must not cost a recording for ever."""
    shutil.rmtree(copy.folders.cache)
    real = Path.open

    def failing(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "PID-A_1.csv":
            raise OSError(5, "Input/output error")
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        patch.setattr("builtins.open", lambda name, *a, **o: failing(Path(name), *a, **o))
        assert len(prepare(copy).ecg_samples) == len(made[1].ecg_samples) - 1
    assert_equal(prepare(copy), made[1])


def test_one_writer_at_a_time_and_nothing_is_left_of_a_killed_run(copy: SiteConfig) -> None:
    folder = cohort_folder(copy)
    with sole_writer(folder), pytest.raises(DataError, match="another run"):
        prepare(copy)
    (folder.parent / "cohort.new-killed").mkdir()
    prepare(copy)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["cohort", "cohort.lock", "store"]


def test_a_folder_that_cannot_be_written_to_is_a_typed_error(copy: SiteConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = copy.folders.model_copy(update={"cache": tmp_path / "file" / "cache"})
    with pytest.raises(DataError, match="written to"):
        prepare(copy.model_copy(update={"folders": blocked}))
    shutil.rmtree(store_folder(copy))
    store_folder(copy).write_text("")
    with pytest.raises(DataError, match=r"folders\.cache") as caught:
        prepare(copy)
    assert "account" in caught.value.remedy


def test_a_person_in_two_splits_is_never_committed(copy: SiteConfig, tmp_path: Path) -> None:
    folders = copy.folders.model_copy(update={"cache": tmp_path / "leaky"})
    leaky = copy.model_copy(update={"folders": folders})
    folders.cache.mkdir()
    draft = Draft()
    for split in (0, 2):
        draft.add_row(pseudonym="p", split=split, ecg=-1, cines={}, person=Person())
    state = fingerprint(copy, key=KEY, source=open_source(copy))
    with pytest.raises(DataError, match="more than one split"):
        write_publication(leaky, draft, fingerprint=state, files={}, left_out={}, notes={}, warnings={})
    assert not list(folders.cache.iterdir())


def test_the_table_of_records_holds_the_refused_ones_too(made: tuple[SiteConfig, Cohort]) -> None:
    table = record_table(made[0])
    rows = table.to_pylist()
    assert len(rows) == 11 and sum(row["accepted"] for row in rows) == 9
    short = next(row for row in rows if row["reason"] == "ecg-too-short")
    assert short["kind"] == "ecg" and not short["accepted"] and short["fs_hz"] is None
    kept = next(row for row in rows if row["kind"] == "ecg" and row["accepted"])
    assert kept["fs_hz"] == RATE_HZ and kept["duration_s"] == 10 and kept["reason"] is None
    cine = next(row for row in rows if row["kind"] == "cine" and row["accepted"])
    assert cine["4ch_frames"] == 25 and cine["fs_hz"] is None
    assert {row["split"] for row in rows} <= {"train", "validation", "test"}
    assert not {"key", "digest", "ecg_offset"} & set(table.column_names)


def test_refused_recordings_can_be_shown(made: tuple[SiteConfig, Cohort]) -> None:
    examples = {example.reason: example for example in refused_examples(made[0])}
    assert set(examples) == {"ecg-too-short", "cine-file-missing"}
    short = examples["ecg-too-short"]
    assert isinstance(short.record, EcgRecord) and short.record.signal_mv.shape == (12, 4 * RATE_HZ)
    assert examples["cine-file-missing"].record is None and examples["cine-file-missing"].kind == "cine"
    assert not list(refused_examples(made[0], per_reason=0))


def test_one_recording_under_two_people_is_a_warning(copy: SiteConfig) -> None:
    index = index_of(copy)
    shutil.copy(index.parent / "ecg" / "PID-B_1.csv", index.parent / "ecg" / "again.csv")
    shutil.copy(index.parent / "ecg" / "PID-A_1.csv", index.parent / "ecg" / "PID-A_3.csv")
    index.write_text(index.read_text() + "PID-H,1,again.csv,\nPID-A,3,PID-A_3.csv,\n")
    assert read_manifest(copy).warnings == {}
    prepare(copy)
    warnings = read_manifest(copy).warnings
    assert warnings["near-duplicates"] == 1 and warnings["near-duplicate-patients"] == 2


def test_a_cohort_of_a_sick_disk_says_so(copy: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.rmtree(copy.folders.cache)
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        with pytest.raises(DataError, match="disk is full"):
            prepare(copy)
    assert len(prepare(copy).row_ecg) == 6
