"""The simulated short axis: it shows the heart of the 4-chamber view, and reaches the cohort beside it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from cardionets_core.config.read import parse_document
from cardionets_core.config.site import read_site
from cardionets_core.data.masks import require_enclosure, ventricle_volumes
from cardionets_core.data.prepare import prepare
from cardionets_core.data.readers.dicom_cine import read_dicom_study
from cardionets_core.data.readers.nifti_cine import read_nifti
from cardionets_core.errors import ConfigError
from simulation.anatomy import mass_g
from simulation.cine import LV, MYO, RV, DrawnCine, draw_cine
from simulation.hearts import Heart, draw_heart
from simulation.machines import Scanner
from simulation.make import draw_patient, make_hospitals
from simulation.scenario import Scenario
from simulation.scenario_table import scenario_content, scenario_table
from simulation.short_axis import SLICES, draw_short_axis
from simulation.writers.local_site import name_of
from simulation.writers.uk_biobank import eid_of

MIX = {"cad": 0.12, "cm": 0.25, "hf": 0.15, "ph": 0.15, "pc": 0.03}
SCANNERS = (Scanner(frames=20), Scanner(spacing_mm=1.5, pixels=128, frames=22))
SMALL = {"spacing_mm": 2.3, "pixels": 80, "frames": 20}
STUDY = {"name": "tiny", "phases": [{"task": "probe", "rounds": 1}]}
SETS = {"long": ["4ch"], "short": ["sax"], "both": ["sax", "4ch"]}


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Heart, DrawnCine, DrawnCine]]:
    found = []
    for index in range(30):
        rng = np.random.default_rng([3, index])
        heart, scanner = draw_heart(rng, prevalence=MIX), SCANNERS[index % 2]
        long = draw_cine(heart, scanner, rng)
        own = np.random.default_rng([4, index])
        found.append((heart, long, draw_short_axis(heart, scanner, own, shapes=long.shapes)))
    return found


def volumes(cine: DrawnCine, label: int) -> np.ndarray:
    """Sum of the slices in ml, [F]."""
    stack, name = cine.stack, {LV: "lv_ml", RV: "rv_ml", MYO: "muscle_ml"}[label]
    step_mm = float(stack.slice_spacing_mm or 0)
    frames = [
        ventricle_volumes(frame, spacing_mm=stack.spacing_mm, slice_spacing_mm=step_mm)
        for frame in cine.masks
    ]
    return np.array([getattr(frame, name) for frame in frames])


def test_slices_add_up_to_the_heart(drawn):
    lv = np.array([volumes(short, LV) for _, _, short in drawn[::2]])
    hearts = [heart for heart, _, _ in drawn[::2]]
    np.testing.assert_allclose(lv[:, 0], [heart.lv_end_diastolic_ml for heart in hearts], rtol=0.03)
    mass = [1.05 * volumes(short, MYO)[0] for _, _, short in drawn[::2]]
    np.testing.assert_allclose(mass, [mass_g(heart) for heart in hearts], rtol=0.06)
    ejected = 1 - lv.min(axis=1) / lv[:, 0]
    assert np.corrcoef(ejected, [heart.ejection_fraction for heart in hearts])[0, 1] > 0.93
    rv = np.array([volumes(short, RV) for _, _, short in drawn[::2]])
    assert np.corrcoef(rv[:, 0], [heart.rv_end_diastolic_ml for heart in hearts])[0, 1] > 0.75


def test_it_beats_with_the_long_axis(drawn):
    for _, long, short in drawn:
        lv = volumes(short, LV)
        assert short.shapes is long.shapes and lv.argmax() == 0
        assert long.shapes.emptying[lv.argmin()] > 0.95


def test_the_left_ventricle_is_enclosed_and_all_lies_inside(drawn):
    for _, _, short in drawn:
        assert set(np.unique(short.masks)) == {0, LV, MYO, RV}
        require_enclosure(short.masks)
        inside = short.masks > 0
        assert inside[..., 2:-2, 2:-2].sum() == inside.sum()
        middle = inside[0].any(axis=(1, 2))
        assert middle.all(), "every slice meets the heart at end diastole"
        left, right = (np.argwhere(short.masks[0, 3] == label)[:, 1].mean() for label in (RV, LV))
        assert left < right


def test_the_picture_shows_the_masks(drawn):
    for _, _, short in drawn[:8]:
        stack = short.stack
        assert stack.pixels.shape == short.masks.shape and stack.pixels.shape[1] == SLICES
        assert stack.view == "sax" and float(stack.slice_spacing_mm or 0) >= 10
        assert stack.pixels.dtype == np.float32 and (stack.pixels == np.rint(stack.pixels)).all()
        assert stack.pixels[short.masks == LV].mean() > 1.7 * stack.pixels[short.masks == MYO].mean()
        assert stack.pixels[short.masks == RV].mean() > 1.7 * stack.pixels[short.masks == MYO].mean()


def test_it_can_be_drawn_alone():
    heart = draw_heart(np.random.default_rng(1), prevalence={})
    one, again = (draw_short_axis(heart, SCANNERS[0], np.random.default_rng(2)) for _ in range(2))
    np.testing.assert_array_equal(one.stack.pixels, again.stack.pixels)
    assert volumes(one, LV)[0] == pytest.approx(heart.lv_end_diastolic_ml, rel=0.03)


def scenario(
    layout: str, *, patients: int = 6, sets: dict[str, list[str]] = SETS, **more: object
) -> Scenario:
    hospitals = [
        {"site": site, "layout": layout, "patients": patients, "repeat_share": 0.4, "scanner": SMALL,
         "views": views, **more}
        for site, views in sets.items()
    ]  # fmt: skip
    return parse_document(
        Scenario, {"name": "tiny", "seed": 5, "hospitals": hospitals, "study": STUDY}, where="test"
    )


@pytest.mark.parametrize("layout", ["uk_biobank", "local_wfdb"])
def test_each_set_of_views_is_prepared(tmp_path: Path, layout: str) -> None:
    made = scenario(layout)
    cohorts = {}
    for path in make_hospitals(made, tmp_path / "h", workers=1):
        site, config = path.parent.name, read_site(path)
        assert config.prepare.views == {"long": ("4ch",), "short": ("sax",), "both": ("4ch", "sax")}[site]
        assert ("views" in path.read_text()) == (site != "long")
        cohorts[site] = prepare(config)
        visits = [
            visit
            for index in range(6)
            for visit in draw_patient(made, site, index).visits
            if (visit.cine or visit.sax) and not (layout == "uk_biobank" and index == 1)  # has withdrawn
        ]
        assert all((visit.cine is not None) == ("4ch" in config.prepare.views) for visit in visits)
        assert all((visit.sax is not None) == ("sax" in config.prepare.views) for visit in visits)
        cohort = cohorts[site]
        shown = {"4ch": cohort.row_cine, **cohort.row_views}
        assert set(shown) == {"4ch", *config.prepare.views}
        for view, items in shown.items():
            kept = len(visits) if view in config.prepare.views else 0
            assert len(np.unique(items[items >= 0])) == kept > 0 or kept == (items >= 0).sum() == 0
        assert not {name for name in cohort.refusals if name.startswith("cine")}
    both = cohorts["both"]
    np.testing.assert_array_equal(both.row_cine >= 0, both.row_views["sax"] >= 0)


def test_the_files_hold_what_was_drawn(tmp_path: Path) -> None:
    for layout, name in (("uk_biobank", f"20209/{eid_of(0)}_20209_2_0.zip"), ("local_wfdb", "")):
        made = scenario(layout, patients=1, sets={"both": SETS["both"]})
        make_hospitals(made, tmp_path / layout, workers=1)
        truth = draw_patient(made, "both", 0).visits[0].sax
        assert truth is not None
        path = tmp_path / layout / "both" / (name or f"sax/{name_of('both', 0)}_1_sax.nii.gz")
        (stack,) = read_dicom_study(path, views=("sax",)) if name else read_nifti(path)
        np.testing.assert_array_equal(stack.pixels, truth.stack.pixels)
        assert stack.view == "sax" and stack.spacing_mm == pytest.approx(truth.stack.spacing_mm)
        assert stack.slice_spacing_mm == pytest.approx(truth.stack.slice_spacing_mm, abs=0.01)
        assert stack.frame_ms == pytest.approx(truth.stack.frame_ms, rel=1e-3)
        if name:
            with zipfile.ZipFile(path) as archive:
                files = [pydicom.dcmread(io.BytesIO(archive.read(each))) for each in archive.namelist()[:-1]]
            assert len(files) == SLICES * SMALL["frames"]
            assert {file.SeriesDescription for file in files} == {
                f"CINE_segmented_SAX_b{place + 1}" for place in range(SLICES)
            }
        else:
            assert nibabel.load(path).shape == (80, 80, SLICES, 20)


@pytest.mark.parametrize("layout", ["uk_biobank", "local_csv"])
def test_a_further_view_changes_no_other_recording(tmp_path: Path, layout: str) -> None:
    digests = {}
    for name, views in (("without", SETS["long"]), ("with", SETS["both"])):
        make_hospitals(scenario(layout, patients=4, sets={"one": views}), tmp_path / name, workers=1)
        digests[name] = {
            path.relative_to(tmp_path / name).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((tmp_path / name).rglob("*"))
            if path.is_file() and path.name not in ("site.yaml", "index.csv", "hospitals.json")
        }
    assert digests["without"].items() < digests["with"].items()
    more = digests["with"].keys() - digests["without"].keys()
    assert all("/20209/" in name or "/sax/" in name for name in more)


def test_views_of_hospitals_are_checked_and_told() -> None:
    plain = scenario("local_csv", sets={"one": ["4ch"]})
    unsaid = plain.model_dump(mode="json", exclude_unset=True)
    del unsaid["hospitals"][0]["views"]
    assert parse_document(Scenario, unsaid, where="test").hospitals_digest == plain.hospitals_digest
    others = {scenario("local_csv", sets={"one": views}).hospitals_digest for views in SETS.values()}
    assert len(others) == 3 and plain.hospitals_digest in others
    for wrong in ([], ["2ch"], ["sax", "sax"]):
        with pytest.raises(ConfigError, match="views"):
            scenario("local_csv", sets={"one": wrong})
    bare = scenario("local_csv", sets={"one": ["sax"]}, missing=["cmr"])
    assert bare.hospitals[0].drawn_views == frozenset() and draw_patient(bare, "one", 0).visits[0].sax is None
    assert scenario("mimic_iv_ecg", sets={"one": ["4ch", "sax"]}).hospitals[0].drawn_views == frozenset()
    table = scenario_table(scenario_content(scenario("local_csv")))
    assert "sax+4ch" in table and "views" in table


def test_a_consortium_deals_views_to_the_sites_with_cines() -> None:
    numbers = {"sites": 7, "patients": 700, "external": 1, "missing": {"cmr": 0.3}, "scanner": SMALL}
    content = {"name": "tiny", "seed": 5, "study": STUDY}
    made = parse_document(
        Scenario, content | {"consortium": numbers | {"views": ["4ch", "sax", "both"]}}, where="test"
    )
    members = [hospital for hospital in made.hospitals if not hospital.external]
    with_cines = [hospital.views for hospital in members if hospital.drawn_views]
    assert with_cines == [("4ch",), ("sax",), ("4ch", "sax"), ("4ch",), ("sax",)]
    assert made.hospitals[-1].views == ("4ch",)
    plain = parse_document(Scenario, content | {"consortium": numbers}, where="test")
    assert {hospital.views for hospital in plain.hospitals} == {("4ch",)}
    same = [hospital.model_dump(exclude={"views"}) for hospital in plain.hospitals]
    assert same == [hospital.model_dump(exclude={"views"}) for hospital in made.hospitals]
