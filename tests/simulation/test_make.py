"""Making hospitals: deterministic, resumable by digest, and refusing to overwrite."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.config.read import parse_document
from cardionets_core.config.site import read_site
from cardionets_core.errors import ConfigError, FolderMissingError, UsageError
from simulation.make import MARKER, draw_patient, make_hospitals
from simulation.scenario import Scenario, load_scenario, shipped_scenarios

SCANNER = {"spacing_mm": 2.3, "pixels": 80, "frames": 20}
STUDY = {"name": "tiny", "phases": [{"task": "probe", "rounds": 1}]}


def _hospital(site: str, layout: str, patients: int = 3) -> dict:
    return {"site": site, "layout": layout, "patients": patients, "scanner": SCANNER}


def _content(**changes: object) -> dict:
    hospitals = [
        _hospital("north", "local_csv"),
        _hospital("bank", "uk_biobank"),
        _hospital("icu", "mimic_iv_ecg"),
    ]
    return {"name": "tiny", "seed": 5, "hospitals": hospitals, "study": STUDY} | changes


def _scenario(**changes: object) -> Scenario:
    return parse_document(Scenario, _content(**changes), where="test")


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_site_documents_are_read_and_name_what_is_there(tmp_path):
    seen: list[tuple[str, int, int]] = []
    paths = make_hospitals(
        _scenario(),
        tmp_path / "h",
        workers=1,
        progress=lambda site, done, total: seen.append((site, done, total)),
    )
    assert [path.parent.name for path in paths] == ["bank", "icu", "north"]
    bank, icu, north = (read_site(path) for path in paths)
    assert "align" in bank.policy.phases
    assert "screening" in icu.policy.phases and "cmr_mae" not in icu.policy.phases
    assert {*icu.policy.phases} < {*north.policy.phases} == {*bank.policy.phases}
    assert {site.policy.role for site in (bank, icu, north)} == {"member"}
    assert not any("role" in path.read_text() for path in paths)
    for path in (
        bank.source.ecg,
        bank.source.cmr,
        north.source.ecg.folder,
        north.source.cmr.folder,
        icu.source.root,
    ):
        assert path.is_dir()
    tables = (bank.source.table, bank.source.diagnoses, icu.source.diagnoses, north.source.people.table)
    for path in (*tables, north.source.index, north.source.diagnoses):
        assert path.is_file()
    assert (north.source.ecg.rate_hz, north.source.ecg.unit) == (500, "uV")
    assert bank.folders.cache == tmp_path / "h" / "bank" / "cache"
    assert seen == [("north", 3, 3), ("bank", 3, 3), ("icu", 3, 3)]


def test_the_bytes_depend_on_the_seed_and_not_on_the_workers(tmp_path):
    hospitals = [_hospital("north", "local_wfdb", 9), _hospital("bank", "uk_biobank", 2)]
    make_hospitals(_scenario(hospitals=hospitals), tmp_path / "one", workers=1)
    make_hospitals(_scenario(hospitals=hospitals), tmp_path / "two", workers=2)
    make_hospitals(_scenario(hospitals=hospitals, seed=6), tmp_path / "other", workers=1)
    one, two, other = (_digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert len(one) > 20
    shared = set(one) & set(other)
    assert any(name.endswith(".xml") for name in shared)
    assert not any(
        one[name] == other[name] for name in shared if name.endswith((".xml", ".dat", ".zip", ".gz"))
    )


def test_a_patient_is_drawn_again_without_the_files(tmp_path):
    scenario = _scenario()
    first, again = (draw_patient(scenario, "bank", 2) for _ in range(2))
    assert first.visits[0].heart == again.visits[0].heart
    np.testing.assert_array_equal(first.visits[0].cine.stack.pixels, again.visits[0].cine.stack.pixels)
    np.testing.assert_array_equal(first.visits[0].ecg.signal_mv, again.visits[0].ecg.signal_mv)
    assert draw_patient(scenario, "bank", 1).visits[0].heart != first.visits[0].heart
    assert draw_patient(scenario, "north", 2).visits[0].heart != first.visits[0].heart
    with pytest.raises(UsageError):
        draw_patient(scenario, "bank", 3)
    with pytest.raises(ConfigError, match="no hospital"):
        draw_patient(scenario, "south", 0)


def test_a_second_call_finds_the_hospitals_made(tmp_path):
    out = tmp_path / "h"
    paths = make_hospitals(_scenario(), out, workers=1)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    # Another study on the same hospitals does not make them anew.
    study = STUDY | {"name": "longer", "seed": 3}
    assert make_hospitals(_scenario(study=study), out, workers=1) == paths
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_another_scenario_or_a_broken_run_is_refused_unless_replaced(tmp_path):
    out = tmp_path / "h"
    make_hospitals(_scenario(), out, workers=1)
    with pytest.raises(UsageError, match="another scenario"):
        make_hospitals(_scenario(seed=6), out, workers=1)
    marker = json.loads((out / MARKER).read_text())
    (out / MARKER).write_text(json.dumps(marker | {"complete": False}))
    with pytest.raises(UsageError, match="incomplete") as caught:
        make_hospitals(_scenario(), out, workers=1)
    assert "another folder" in caught.value.remedy
    (out / "north" / "ecg" / "stray.csv").write_text("left over")
    make_hospitals(_scenario(), out, workers=1, replace=True)
    assert not (out / "north" / "ecg" / "stray.csv").exists()
    assert json.loads((out / MARKER).read_text())["complete"] is True


def test_a_folder_with_other_things_is_refused_and_they_survive_a_replacement(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        make_hospitals(_scenario(), tmp_path, workers=1)
    make_hospitals(
        _scenario(hospitals=[_hospital("icu", "mimic_iv_ecg", 1)]), tmp_path, workers=1, replace=True
    )
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_real_folders_are_named_and_never_copied(tmp_path):
    hospitals = [
        {"site": "georgia", "layout": "wfdb_folder", "folder": "ecg/georgia", "split": {"test": 0.25}}
    ]
    scenario = _scenario(hospitals=hospitals)
    with pytest.raises(UsageError) as caught:
        make_hospitals(scenario, tmp_path / "h")
    assert "--data" in caught.value.remedy
    with pytest.raises(FolderMissingError):
        make_hospitals(scenario, tmp_path / "h", data=tmp_path / "nowhere")
    assert not (tmp_path / "h").exists()
    (tmp_path / "data" / "ecg" / "georgia").mkdir(parents=True)
    (document,) = make_hospitals(scenario, tmp_path / "h", data=tmp_path / "data")
    site = read_site(document)
    assert site.source.ecg.folder == tmp_path / "data" / "ecg" / "georgia"
    assert site.prepare.split.test == 0.25
    assert site.policy.phases == ("ecg_mae",)
    with pytest.raises(UsageError):
        draw_patient(scenario, "georgia", 0)


def test_an_external_hospital_says_so_in_its_document_and_may_hold_out_everybody(tmp_path):
    away = _hospital("away", "mimic_iv_ecg", 1) | {"external": True, "split": {"validation": 0, "test": 1}}
    (tmp_path / "data" / "real").mkdir(parents=True)
    real = {"site": "real", "layout": "wfdb_folder", "folder": "real", "external": True}
    home = _hospital("home", "mimic_iv_ecg", 1)
    scenario = _scenario(hospitals=[home, away, real])
    sites = [read_site(path) for path in make_hospitals(scenario, tmp_path / "h", data=tmp_path / "data")]
    assert {site.site: site.policy.role for site in sites} == {
        "home": "member", "away": "external", "real": "external",
    }  # fmt: skip
    assert sites[0].prepare.split.test == 1 and sites[0].policy.phases == sites[1].policy.phases
    with pytest.raises(ConfigError, match="nobody would train"):
        _scenario(hospitals=[away, real])
    with pytest.raises(ConfigError, match="nobody to train on"):
        _scenario(hospitals=[home, away | {"external": False}])


def test_shipped_scenarios_are_read_and_described():
    found = shipped_scenarios()
    assert {"demo", "real_ecg"} <= set(found)
    for name, about in found.items():
        assert load_scenario(name).name == name
        assert about
    demo = load_scenario("demo")
    assert {hospital.layout for hospital in demo.hospitals} == {
        "uk_biobank",
        "mimic_iv_ecg",
        "local_wfdb",
        "local_csv",
    }


def test_an_unknown_scenario_lists_those_that_exist(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_scenario("nonesuch")
    assert "demo" in caught.value.remedy
    with pytest.raises(ConfigError, match="no file"):
        load_scenario(tmp_path / "absent.yaml")


def test_every_fault_of_a_scenario_is_listed():
    content = _content(colour="red")
    content["hospitals"][0]["patiens"] = 4
    content["hospitals"][1]["cart"] = {"rate_hz": 1000}
    content["study"] = {"name": "tiny", "phases": [], "rounds": 3}
    with pytest.raises(ConfigError) as caught:
        parse_document(Scenario, content, where="test")
    for part in (
        "colour: unknown key",
        "patiens: unknown key; did you mean 'patients'",
        "500 Hz",
        "study.phases",
        "study.rounds",
    ):
        assert part in caught.value.what, part


@pytest.mark.parametrize(
    "hospitals",
    [
        [_hospital("twin", "local_csv"), _hospital("twin", "local_wfdb")],
        [_hospital("pooled", "local_csv")],
        [{"site": "out", "layout": "wfdb_folder", "folder": "../private"}],
        [_hospital("north", "local_csv") | {"scanner": {"pixels": 80, "spacing_mm": 1.2}}],
        [_hospital("north", "local_csv") | {"cart": {"rate_hz": 200, "lowpass_hz": 150}}],
    ],
)
def test_hospitals_that_cannot_be_are_refused(hospitals):
    with pytest.raises(ConfigError):
        _scenario(hospitals=hospitals)


def test_the_digest_follows_hospitals_and_seed_only():
    base = _scenario().hospitals_digest
    assert _scenario(name="renamed", study=STUDY | {"seed": 9}).hospitals_digest == base
    assert _scenario(seed=6).hospitals_digest != base
    digests = {
        _scenario(hospitals=[_hospital("north", "local_csv") | change, home]).hospitals_digest
        for home in [_hospital("home", "local_csv")]
        for change in ({}, {"patients": 4}, {"external": True}, {"cart": {"leads": "shuffled"}})
    }
    assert len(digests | {base}) == 5
