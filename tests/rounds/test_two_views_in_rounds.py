"""Sites with the short axis, the 4-chamber view, both, or neither in one study of the earlier generation."""

from __future__ import annotations

import functools
import shutil

import pytest

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import QuorumNotMetError
from client.app import make_app
from server.app import run_study
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid
from simulation.make import make_hospitals
from simulation.scenario import Scenario

SCANNER = {"spacing_mm": 2.2, "pixels": 80, "frames": 20}
COMMON = {
    "patients": 20,
    "split": {"validation": 0.2, "test": 0.3},
    "policy": {"minimum_patients": 5, "minimum_cell": 1},
}
STEPS = {"rounds": 1, "local_steps": 2, "batch_size": 8, "optimiser": {"lr": 1e-3}}
PHASES = (
    {"task": "cmr_mae", **STEPS},
    {"task": "align", **STEPS},
    {"task": "tokenizer", **STEPS, "batch_size": 2},
    {"task": "tokenizer", **STEPS, "batch_size": 2, "options": {"view": "sax"}},
)
TOWERS = {"4ch": {"cmr_encoder", "cmr_decoder"}, "sax": {"sax_encoder", "sax_decoder"}}


def study(**changes) -> Study:
    content = {
        "name": "views",
        "seed": 5,
        "generation": "cardiacnets",
        "sites": {"minimum": 1, "deadline_s": 60},
        "phases": PHASES,
    }
    return Study.model_validate({**content, **changes})


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Four hospitals by what they hold, prepared."""
    hospitals = [
        {"site": "both", "layout": "uk_biobank", "views": ["4ch", "sax"], "scanner": SCANNER, **COMMON},
        {"site": "short", "layout": "local_wfdb", "views": ["sax"], "scanner": SCANNER, **COMMON},
        {"site": "long", "layout": "local_csv", "views": ["4ch"], "scanner": SCANNER, **COMMON},
        {"site": "neither", "layout": "mimic_iv_ecg", **COMMON},
    ]
    content = {"name": "views", "seed": 3, "hospitals": hospitals, "study": study().model_dump(mode="json")}
    made = make_hospitals(Scenario.model_validate(content), tmp_path_factory.mktemp("views"), workers=1)
    for path in made:
        prepare(read_site(path))
    return {path.parent.name: path for path in made}


def run(asked, paths, folder):
    for path in paths:
        shutil.rmtree(path.parent / "state", ignore_errors=True)
    locate = functools.partial(hospital_of_partition, tuple(paths))
    return run_study(LocalGrid([make_app(locate) for _ in paths]), asked, folder=folder, track=False)


def test_each_site_trains_what_it_holds_in_one_study(sites, tmp_path):
    result = run(study(), sites.values(), tmp_path / "run")
    assert result["status"] == "completed"
    trained = {
        (entry["phase"], row["site"]): set(row["samples"])
        for entry in result["rounds"]
        for row in entry["sites"]
        if row.get("samples")
    }
    projections = {"cmr_projection", "sax_projection"}
    both = TOWERS["4ch"] | TOWERS["sax"] | projections
    aligned = {"ecg_encoder", "ecg_projection"}
    assert trained == {
        (0, "both"): both, (0, "short"): TOWERS["sax"], (0, "long"): TOWERS["4ch"],
        (1, "both"): aligned, (1, "short"): aligned, (1, "long"): aligned, (1, "neither"): {"ecg_encoder"},
        (2, "both"): {"cmr_tokenizer"}, (2, "long"): {"cmr_tokenizer"},
        (3, "both"): {"sax_tokenizer"}, (3, "short"): {"sax_tokenizer"},
    }  # fmt: skip
    said = {site["site"]: site["phases"] for site in result["sites"]}
    assert said["short"] == {
        "cmr_mae": "serves",
        "align": "serves",
        "tokenizer": "modality-missing",
        "tokenizer (sax)": "serves",
    }
    assert said["long"]["tokenizer (sax)"] == "modality-missing" and said["long"]["tokenizer"] == "serves"
    counted = {site["site"]: site["recordings"] for site in result["sites"]}
    assert counted["short"]["cine"] == 0 < counted["short"]["sax"] and "sax" not in counted["long"]


def test_heads_that_no_site_could_train_are_no_targets(sites, tmp_path):
    """Without a site that holds both views the projections keep their random numbers."""
    alone = [sites["short"], sites["long"]]
    with pytest.raises(QuorumNotMetError, match="no site has trained cmr_projection") as caught:
        run(study(phases=PHASES[:2]), alone, tmp_path / "run")
    assert "both views" in caught.value.remedy and "phase 2 (align)" in str(caught.value)
    principal = ({"task": "principal", "rounds": 1, "options": {"view": view}} for view in ("4ch", "sax"))
    cosine = {**PHASES[1], "options": {"loss": "cosine"}}
    result = run(study(phases=[PHASES[0], *principal, cosine]), alone, tmp_path / "cosine")
    assert result["status"] == "completed"
