"""The doctor: everything that is wrong at once, each with its remedy, and nothing changed on disk."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cardionets_core.config.site import read_site
from cardionets_core.data.pack import Packed
from cardionets_core.data.records import Recording
from client.doctor.clock import check_clock
from client.doctor.folders import check_folders
from client.doctor.machine import check_disk, check_libraries, estimated_bytes
from client.doctor.sample import Sampled, choose_sample
from client.report.sample_picture import write_sample_picture


def state_of(folder):
    """Every file's path, mode and bytes."""
    return {
        path: (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


def change(hospital, **changes):
    """Set dotted keys of the site's document."""
    document = yaml.safe_load(hospital.site.read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        part = document
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    hospital.site.write_text(yaml.safe_dump(document))


def test_before_prepare_all_but_the_cache_is_checked_and_nothing_is_changed(hospital, client, tmp_path):
    before = state_of(hospital.folder)
    done = client("check", "--site", hospital.site, "--format", "json", "--picture", tmp_path / "sample.png")
    assert state_of(hospital.folder) == before
    found = json.loads(done.out)
    assert [problem["code"] for problem in found["problems"]] == ["cache-missing"] and done.code == 4
    assert all(problem["remedy"] for problem in found["problems"])
    assert found["schema_version"] == 2 and found["exit_code"] == 4
    assert set(found["phases"].values()) == {"cache-missing"}
    assert found["sample"]["read"] == 8
    assert found["sample"]["accepted"] + sum(found["sample"]["refused"].values()) == 8
    assert found["listing"]["recordings"] == {"ecg": 11, "cine": 12}
    patients = [counts["patients"] for counts in found["splits"]["splits"].values()]
    assert sum(patients) == found["listing"]["patients"] == 12
    assert found["disk"]["cache_estimate_bytes"] == estimated_bytes(11, 12)
    with Image.open(tmp_path / "sample.png") as image:
        assert image.width > 500 and not image.info and len(image.getcolors(1 << 24)) > 50
    assert (tmp_path / "sample.png").stat().st_mode & 0o777 == 0o600
    told = done.out + done.err
    assert not [name for name in hospital.identifiers if name in told]
    again = client("check", "--site", hospital.site, "--picture", tmp_path / "sample.png")
    assert again.code == 2 and "--replace" in again.err
    lines = client("check", "--site", hospital.site, "--sample", 0).out.splitlines()
    assert len([line for line in lines if "there is no cache" in line]) == 2  # of the phases, and the problem
    assert not [line for line in lines if line.startswith("phase ") or "stale" in line]
    assert "to do: run `prepare`" in lines[-2]


def test_the_listing_gives_the_splits_that_prepare_gives(hospital, client):
    before = json.loads(client("check", "--site", hospital.site, "--format", "json").out)["splits"]
    assert client("prepare", "--site", hospital.site).code == 0
    after = json.loads(client("check", "--site", hospital.site, "--format", "json").out)["splits"]
    assert (before["from"].split(":")[0], after["from"]) == ("listing", "cache")
    for split, counts in after["splits"].items():
        assert counts["patients"] == before["splits"][split]["patients"]
        assert counts["recordings"] <= before["splits"][split]["recordings"]


def test_without_a_key_the_splits_are_only_expected_and_no_key_is_made(hospital, client):
    (hospital.folder / "secret" / "pseudonym.key").unlink(missing_ok=True)
    found = json.loads(client("check", "--site", hospital.site, "--sample", 0, "--format", "json").out)
    assert found["splits"]["from"].startswith("expected")
    assert sum(counts["patients"] for counts in found["splits"]["splits"].values()) == pytest.approx(
        12, abs=1
    )
    assert not (hospital.folder / "secret" / "pseudonym.key").exists()
    assert found["sample"]["read"] == 0 and found["folders"]["key"].startswith("not made")


def test_every_problem_is_told_at_once_with_the_worst_exit_code(hospital, client):
    key = hospital.folder / "secret" / "pseudonym.key"
    key.parent.mkdir(exist_ok=True)
    key.write_bytes(bytes(32))
    key.chmod(0o640)
    (hospital.folder / "file").write_text("in the way")
    change(hospital, source__index="no-index.csv", source__cmr__folder="nowhere", device__name="cuda:7",
           folders__state="file/state", policy__phases=["ecg_mae", "sing"])  # fmt: skip
    done = client("check", "--site", hospital.site, "--format", "json")
    problems = json.loads(done.out)["problems"]
    found = {(problem["code"], problem["where"]) for problem in problems}
    assert {
        ("folder-missing", "site.yaml: source.index"),
        ("folder-missing", "site.yaml: source.cmr.folder"),
        ("config-invalid", "site.yaml: device.name"),
        ("data", "site.yaml: folders.state"),
        ("privacy", "site.yaml: folders.secret"),
        ("unknown-name", "site.yaml: policy.phases"),
    } <= found
    assert len(problems) == len(found) and all(problem["remedy"] for problem in problems)
    assert done.code == 5 == max(problem["exit_code"] for problem in problems)
    lines = client("check", "--site", hospital.site).out
    assert f"{len(problems)} problem(s)" in lines and lines.count("to do:") >= len(problems)


def test_a_site_of_which_no_sampled_record_can_be_used_has_a_problem(hospital, client):
    change(hospital, source__cmr=None)
    for path in (hospital.folder / "ecg").glob("*.dat"):
        path.write_bytes(b"")
    found = json.loads(client("check", "--site", hospital.site, "--format", "json").out)
    assert found["sample"]["accepted"] == 0
    (problem,) = [problem for problem in found["problems"] if problem["where"] == "sample"]
    assert "ecg-truncated" in problem["what"] and "inspect" in problem["remedy"]


def test_a_broken_document_is_one_problem(hospital, client):
    hospital.site.write_text("site: 3")
    done = client("check", "--site", hospital.site, "--format", "json")
    assert done.code == 3 and json.loads(done.out)["problems"][0]["code"] == "config-invalid"
    assert "problem [config-invalid]" in client("check", "--site", hospital.site).out


def test_the_clock_is_compared_with_what_is_past(hospital):
    config = read_site(hospital.site)
    newest = max(path.stat().st_mtime for path in Path(__file__).parents[2].rglob("cardionets_core/**/*.py"))
    assert check_clock(config, now_s=newest, synchronised="yes").problems == []
    (early,) = check_clock(config, now_s=newest - 3 * 86_400, synchronised="yes").problems
    assert "files" in early.what and early.exit_code == 3
    config.folders.state.mkdir()
    line = json.dumps({"time_s": newest + 100})
    (config.folders.state / "journal.jsonl").write_text(f"hash {line}\n")
    assert check_clock(config, now_s=newest + 101, synchronised="yes").problems == []
    (behind,) = check_clock(config, now_s=newest + 99, synchronised="yes").problems
    assert "journal" in behind.what
    assert check_clock(config, now_s=4.2e9, synchronised="yes").problems
    (notice,) = check_clock(config, now_s=newest + 101, synchronised="no").notices
    assert "NTP" in notice.remedy


def test_disk_that_is_too_small_for_the_estimate_is_a_problem(hospital):
    config = read_site(hospital.site)
    assert check_disk(config, needed_bytes=0).facts["free_bytes"] > 0
    (problem,) = check_disk(config, needed_bytes=estimated_bytes(10**12, 0)).problems
    assert problem.code == "machine-unfit" and problem.where == "site.yaml: folders.cache"


def test_the_installed_libraries_are_those_that_are_asked_for():
    findings = check_libraries()
    assert findings.problems == []
    if findings.facts["required"]:
        assert findings.facts["required"]["torch"]["found"]


def test_lists_of_folders_are_checked_one_by_one(hospital):
    document = yaml.safe_load(hospital.site.read_text())
    ecg = document["source"]["ecg"]
    change(hospital, source__ecg=[ecg, {**ecg, "folder": "second", "pattern": "{patient}.hea"}])
    (problem,) = check_folders(read_site(hospital.site)).problems
    assert problem.where == "site.yaml: source.ecg.1.folder"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20), st.randoms())
def test_a_sample_is_spread_over_the_listing_and_always_the_same(ecgs, cines, count, shuffler):
    listed = [
        Recording(patient=str(n), visit="1", kind=kind, path=Path(f"/{kind}/{n:03d}"))
        for kind, total in (("ecg", ecgs), ("cine", cines))
        for n in range(total)
    ]
    chosen = choose_sample(listed, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(listed))
    if count >= 2:
        assert {recording.kind for recording in chosen} == {recording.kind for recording in listed}
    shuffled = shuffler.sample(listed, len(listed))
    assert choose_sample(shuffled, count) == chosen
    for kind, total in (("ecg", ecgs), ("cine", cines)):
        places = [int(recording.path.name) for recording in chosen if recording.kind == kind]
        if len(places) > 1:
            assert (places[0], places[-1]) == (0, total - 1)


def test_a_sheet_shows_what_is_left_out_and_each_view(tmp_path):
    rng = np.random.default_rng(0)
    ecg = rng.normal(0, 300, (12, 2500)).astype(np.int16)
    view = rng.integers(0, 255, (50, 96, 96)).astype(np.uint8)
    heights = []
    for packed in (Packed(reason="ecg-flat"), Packed(ecg=ecg), Packed(cines={"4ch": view, "sax": view})):
        write_sample_picture(tmp_path / "x.png", [Sampled(kind="ecg", packed=packed)])
        with Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())) as image:
            heights.append(image.height)
    assert heights[0] < heights[1] and heights[0] < heights[2]


def test_where_nothing_was_sampled_no_picture_is_written(hospital, client, tmp_path):
    whole = hospital.site.read_text()
    hospital.site.write_text("site: 3")
    done = client("check", "--site", hospital.site, "--picture", tmp_path / "x.png")
    assert done.code == 3 and "no picture was written" in done.err and not (tmp_path / "x.png").exists()
    hospital.site.write_text(whole)
    assert client("check", "--site", hospital.site, "--picture", tmp_path / "x.png").code == 4
    assert (tmp_path / "x.png").exists()


@pytest.mark.parametrize("key", ["cache", "state"])
def test_a_file_in_the_place_of_a_folder_is_a_problem(hospital, client, key):
    (hospital.folder / key).write_text("in the way")
    done = client("check", "--site", hospital.site, "--sample", 0, "--format", "json")
    problems = [p for p in json.loads(done.out)["problems"] if p["where"] == f"site.yaml: folders.{key}"]
    assert len(problems) == 1 and "is not a folder" in problems[0]["what"] and problems[0]["remedy"]


@pytest.mark.parametrize("wrong", ["folder", "short"])
def test_what_is_no_key_is_a_problem_once(hospital, client, wrong):
    assert client("prepare", "--site", hospital.site).code == 0
    secret = read_site(hospital.site).folders.secret
    secret.unlink()
    secret.mkdir() if wrong == "folder" else secret.write_bytes(bytes(31))
    secret.chmod(0o700 if wrong == "folder" else 0o600)
    done = client("check", "--site", hospital.site, "--sample", 0, "--format", "json")
    found = json.loads(done.out)
    (problem,) = [problem for problem in found["problems"] if "folders.secret" in problem["where"]]
    assert problem["remedy"] and done.code == 4 and found["folders"]["key"] == "cannot be used"


def test_expected_splits_are_said_to_be_about(hospital, client):
    (hospital.folder / "secret" / "pseudonym.key").unlink(missing_ok=True)
    told = client("check", "--site", hospital.site, "--sample", 0).out
    assert told.count("expected, about ") == 3
    assert client("prepare", "--site", hospital.site).code == 0
    assert (
        "about"
        not in client("check", "--site", hospital.site, "--sample", 0)
        .out.split("splits")[1]
        .split("phase")[0]
    )
