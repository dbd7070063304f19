"""What ``inspect`` tells of real files and of damaged ones, and what it never tells."""

import json

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.records import LEADS, CineStack, EcgRecord
from cardionets_core.errors import REFUSAL_REASONS
from client.inspection import declared_parts, inspect_one, inspect_paths
from client.recordings_on_disk import Found, recordings_on_disk
from client.wording import inspection_lines

VENDOR = "expected_vendor.json"


def of_one(path, **more):
    (found,) = inspect_paths([path], **more)
    return found


def write_wfdb(folder, name, *, seconds=10, leads=LEADS):
    """A plain record: a beat a second in I and II, the others by the identities."""
    t = np.arange(500 * seconds) / 500
    beat = np.exp(-0.5 * (((t % 1.0) - 0.5) / 0.02) ** 2)
    noise = np.random.default_rng(1).normal(0, 0.02, (8, len(t)))
    one, two = beat + noise[6], 0.8 * np.roll(beat, 3) + noise[7]
    rows = {"I": one, "II": two, "III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2,
            "aVF": two - one / 2} | {f"V{n}": beat * n / 4 + noise[n - 1] for n in range(1, 7)}  # fmt: skip
    counts = np.rint(np.stack([rows.get(lead, beat) for lead in leads], axis=1) * 1000).astype("<i2")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dat").write_bytes(counts.tobytes())
    lines = [f"{name} {len(leads)} 500 {len(t)}"]
    lines += [f"{name}.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in leads]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.hea"


def test_vendor_files_have_the_peaks_and_rms_of_independent_readers(shared_data):
    expected = json.loads((shared_data / VENDOR).read_text())
    for name, truth in expected.items():
        found = of_one(shared_data / name)
        assert found["kind"] == "ecg", name
        assert found["rate_hz"] == truth["fs"]
        if not name.endswith(("sierra_1_03.xml", "sierra_1_04_a.xml")):  # there, the calibration is cropped
            assert found["samples"] == truth["n"]
            for lead, peak in truth["peak_mV"].items():
                assert found["lead_mv"][lead]["peak"] == pytest.approx(peak, abs=0.0026), (name, lead)
                assert found["lead_mv"][lead]["rms"] == pytest.approx(truth["rms_mV"][lead], abs=0.0026)


def test_a_folder_of_real_recordings_is_one_record_a_header(shared_data):
    found = list(inspect_paths([shared_data / "ecg" / "georgia", shared_data / "ecg" / "ptb"]))
    assert [entry["argument"] for entry in found] == [1] * 12 + [2]
    assert [entry["record"] for entry in found[:12]] == list(range(1, 13))
    assert {entry["format"] for entry in found} == {"wfdb"}
    assert found[12]["leads"][-3:] == ["vx", "vy", "vz"] and found[12]["samples"] == 38400
    for entry in found:
        assert entry["verdict"] in ("accepted", "flagged")
        assert all(size["rms"] <= size["peak"] for size in entry["lead_mv"].values())


def test_the_cardiac_phases_of_a_real_study_are_counted_from_one(shared_data):
    found = of_one(shared_data / "cmr" / "sunnybrook" / "SCD0000301.zip")
    (view,) = [view for view in found["views"] if view["slices"] > 1]
    assert (view["frames"], view["slices"]) == (20, 10)
    assert view["slice_spacing_mm"] == pytest.approx(8.0, abs=0.01)
    assert 1 <= view["ed_frame"] <= 20 and 1 <= view["es_frame"] <= 20 and view["frames_counted_from"] == 1
    assert "counted from 1" in "\n".join(inspection_lines(found))


def test_a_folder_of_dicom_ecgs_is_not_taken_for_a_study_of_cines(shared_data):
    found = list(inspect_paths([shared_data / "ecg" / "vendor"]))
    assert {entry["kind"] for entry in found} == {"ecg"}
    assert len(found) == len(json.loads((shared_data / VENDOR).read_text())) + 1  # the SCP twin has no row
    assert [entry for entry in found if entry["verdict"] == "refused"] == []


def test_a_patient_folder_of_cines_is_one_record(shared_data):
    found = of_one(shared_data / "cmr" / "acdc" / "patient007")
    (view,) = found["views"]
    info = (shared_data / "cmr" / "acdc" / "patient007" / "Info.cfg").read_text()
    assert view["frames"] == 2 and view["mask"] and view["phase_source"] == "given"
    assert "ED:" in info and 1.0 < view["spacing_mm"][0] < 2.0 and view["slice_spacing_mm"] >= 5


def test_a_signal_file_stands_for_its_record_and_a_stranger_is_unrecognised(tmp_path):
    header = write_wfdb(tmp_path / "a", "smith")
    assert of_one(header) == of_one(header.with_suffix(".dat"))
    (tmp_path / "a" / "letter.txt").write_text("dear colleague")
    (tmp_path / "a" / "deep").mkdir()
    write_wfdb(tmp_path / "a" / "deep", "jones", seconds=3)
    found = list(inspect_paths([tmp_path]))
    assert [entry["reason"] for entry in found] == ["ecg-too-short", "unrecognised", None]
    assert found[0]["sentence"] == REFUSAL_REASONS["ecg-too-short"] and found[0]["samples"] == 1500
    # A Gaussian a second has a mean square of sigma * sqrt(pi); the noise adds its own.
    rms = (0.02 * np.pi**0.5 + 0.02**2) ** 0.5
    assert found[2]["lead_mv"]["I"] == {
        "peak": pytest.approx(1.0, abs=0.06),
        "rms": pytest.approx(rms, abs=1e-3),
    }


def test_no_name_of_a_file_or_of_an_odd_lead_is_told(tmp_path, client):
    write_wfdb(tmp_path / "Ward-Seven", "Jane-Doe-1950", leads=(*LEADS, "Doctor-Who"))
    (tmp_path / "Ward-Seven" / "Jane-Doe.hea").write_text("Jane-Doe-1951 oops\n")
    for form in ("table", "json"):
        done = client("inspect", tmp_path, "--format", form)
        assert done.code == 0
        told = done.out + done.err
        assert not [word for word in ("Jane", "Doe", "Ward", "Who", str(tmp_path)) if word in told]
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert {line["schema_version"] for line in lines} == {1}
    assert [line["leads"][12] for line in lines if "leads" in line] == ["other 13"]


def test_the_exit_code_is_4_only_where_nothing_could_be_read(tmp_path, client):
    (tmp_path / "notes.txt").write_text("nothing")
    done = client("inspect", tmp_path)
    assert done.code == 4 and "unrecognised: 1" in done.out
    assert client("inspect", tmp_path / "notes.txt").out.startswith("1.1  unknown: refused, unrecognised")
    write_wfdb(tmp_path, "short", seconds=2)
    done = client("inspect", tmp_path)
    assert done.code == 0 and "ecg-too-short" in done.out and "1 refused" in done.out
    assert client("inspect", tmp_path / "nowhere").code == 2


def test_what_must_be_declared_is_said_and_used(tmp_path, client):
    rows = np.genfromtxt(write_csv(tmp_path / "ecg" / "x.csv"), delimiter=",", skip_header=1)
    undeclared = of_one(tmp_path / "ecg" / "x.csv")
    assert undeclared["reason"] == "ecg-undeclared"
    assert all(word in undeclared["detail"] for word in ("rate_hz", "unit", "source.ecg", "--site"))
    config = SiteConfig(
        site="here",
        source={
            "kind": "local_site",
            "ecg": {"format": "csv", "folder": tmp_path / "ecg", "rate_hz": 500, "unit": "uV"},
        },
        policy={"phases": ["ecg_mae"]},
    )
    found = of_one(tmp_path / "ecg" / "x.csv", declared=declared_parts(config))
    assert found["verdict"] == "accepted" and found["rate_hz"] == 500
    assert found["lead_mv"]["V6"]["peak"] == pytest.approx(np.abs(rows[:, 11]).max() / 1000)


def write_csv(path):
    header = write_wfdb(path.parent / "hidden", "x")
    counts = np.frombuffer(header.with_suffix(".dat").read_bytes(), "<i2").reshape(-1, 12)
    np.savetxt(path, counts, delimiter=",", header=",".join(LEADS), comments="", fmt="%d")
    return path


class Reader:
    """Stands for any reader: gives a record, or fails."""

    name, kind, title, needs = "fake", "cine", "Fake", ()

    def __init__(self, record):
        self.record = record

    def read(self, path, options):
        if isinstance(self.record, Exception):
            raise self.record
        return self.record


def through(tmp_path, record):
    return inspect_one(Found(path=tmp_path, position=1, reader=Reader(record)))


def test_views_are_judged_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    moving = rng.uniform(0, 100, (25, 64, 64)).astype(np.float32)
    stacks = (
        CineStack(pixels=moving, spacing_mm=(1.5, 1.6), frame_ms=30.0, view="4ch", ed_frame=0, es_frame=9,
                  phase_source="given"),
        CineStack(pixels=moving[:5], spacing_mm=(1.5, 1.6), view="2ch"),
        CineStack(pixels=moving, spacing_mm=(1.5, 1.6), view="unknown"),
    )  # fmt: skip
    found = through(tmp_path, stacks)
    good, short, unknown = found["views"]
    assert found["verdict"] == good["verdict"] != "refused"
    assert (good["ed_frame"], good["es_frame"], good["phase_source"]) == (1, 10, "given")
    assert good["spacing_mm"] == [1.5, 1.6] and (good["rows"], good["columns"]) == (64, 64)
    assert (short["reason"], unknown["reason"]) == ("cine-frames", "cine-no-view")
    alone = through(tmp_path, stacks[1:2])
    assert (alone["verdict"], alone["reason"]) == ("refused", "cine-frames")
    assert through(tmp_path, ())["reason"] == "cine-no-view"


def test_a_failing_reader_is_told_as_ours_without_its_text(tmp_path):
    found = through(tmp_path, ValueError("Jane Doe, born 1950"))
    assert found["reason"] == "reader-failed" and "Jane" not in json.dumps(found)


def test_missing_samples_do_not_hide_the_others(tmp_path):
    signal = np.full((12, 5000), np.nan, dtype=np.float32)
    signal[0, :10] = [3, -4, np.inf, 0, 0, 0, 0, 0, 0, 0]
    found = through(tmp_path, EcgRecord(signal_mv=signal, fs_hz=500.0, leads=LEADS))
    assert found["lead_mv"]["I"] == {"peak": 4.0, "rms": pytest.approx((25 / 9) ** 0.5, rel=1e-5)}
    assert found["lead_mv"]["V1"] == {"peak": None, "rms": None}
    assert found["missing_samples"] == 12 * 5000 - 9 and found["verdict"] == "refused"
    json.dumps(found, allow_nan=False)


def test_links_to_folders_are_not_followed(tmp_path):
    write_wfdb(tmp_path / "a", "x")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(list(recordings_on_disk(tmp_path))) == 1
