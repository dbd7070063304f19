"""What the pictures of a finished run show, against what the run measured."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.config.study import Study
from cardionets_core.data.records import DISEASES
from cardionets_core.tasks.shapes import shape_of
from simulation.calibration_curves import reliability_curves
from simulation.flower import run_locally
from simulation.interpret import attribute_volume, choose_person, compare_tokens
from simulation.phase_end import phase_end
from simulation.plots import FinishedRun, plot_run
from simulation.reconstruct import masked_cines, masked_ecgs, tokenized_cines
from simulation.table import result_table

STEPS = {"rounds": 1, "local_steps": 2, "batch_size": 8, "optimiser": {"lr": 1e-3}}
MEAN = {"windows": "mean", "bootstrap_replicates": 20}
PHASES = [
    {"task": "cmr_mae", **STEPS},
    {"task": "ecg_mae", **STEPS},
    {"task": "align", **STEPS},
    {"task": "probe", "rounds": 1, "options": {"bootstrap_replicates": 20}},
    {"task": "standardise", "rounds": 1},
    {"task": "phenotype", **STEPS, "options": MEAN},
    {"task": "prevalence", "rounds": 1},
    {"task": "screening", **STEPS, "options": MEAN},
    {"task": "calibrate", "rounds": 1},
    {"task": "tokenizer", **STEPS},
]
PAIRS = frozenset({"ecg", "cine"})


@dataclass(frozen=True)
class Finished:
    study: Study
    folder: Path
    result: dict


def run(study: Study, consortium, folder: Path) -> Finished:
    paths = [consortium.paths[site] for site in ("alpha", "gamma")]
    result = run_locally(study, paths, folder=folder, progress=lambda event: None, track=False)
    return Finished(study, folder, {**result, "comparison": [], "differences": []})


@pytest.fixture(scope="module")
def finished(consortium, tmp_path_factory):
    content = {"name": "shown", "seed": 5, "sites": {"minimum": 1, "deadline_s": 60}, "phases": PHASES}
    return run(Study.model_validate(content), consortium, tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def cohorts(consortium):
    return {site: consortium.cohorts[site] for site in ("alpha", "gamma")}


@pytest.fixture(scope="module")
def person(finished, cohorts):
    return choose_person(finished.study, cohorts, external=frozenset(), needs=PAIRS)


def test_the_person_is_held_out_and_has_the_largest_heart(person, cohorts, finished):
    shape = shape_of(finished.study.models)
    volumes = {
        (site, int(row)): cohort.phenotypes[row, 0]
        for site, cohort in cohorts.items()
        for row in cohort.rows(PAIRS, "test", shape)
    }
    assert volumes[person.cohort.site, person.row] == np.nanmax(list(volumes.values()))
    others = frozenset(cohorts) - {person.cohort.site}
    other = choose_person(finished.study, cohorts, external=frozenset({person.cohort.site}), needs=PAIRS)
    assert {other.cohort.site} == others
    # The trace in mV is the window that the model gets, but for scale and offset.
    window, trace = person.ecg_1LT[0].numpy(), person.trace_LT
    slope, offset = np.polyfit(trace.ravel(), window.ravel(), 1)
    np.testing.assert_allclose(slope * trace + offset, window, atol=1e-3)


def test_the_attribution_adds_up_to_the_volume(person, finished, cohorts):
    found = attribute_volume(finished.study, person, folder=finished.folder)
    assert found.task == "phenotype"
    change = found.predicted_ml - found.baseline_ml
    assert found.attribution_LT.sum() + found.missed_ml == pytest.approx(change, abs=1e-3)
    assert found.measured_ml == pytest.approx(person.cohort.phenotypes[person.row, 0])
    end = phase_end(finished.study, "phenotype", folder=finished.folder)
    feature = end.modules["ecg_encoder"](person.ecg_1LT)
    numbers = end.modules["phenotype_standardiser"]
    predicted = numbers.restore(end.modules["phenotype_head"](feature))[0, 0]
    assert found.predicted_ml == pytest.approx(float(predicted), rel=1e-5)


def test_the_similarity_of_parts_is_that_of_their_projections(person, finished):
    found = compare_tokens(finished.study, person, folder=finished.folder)
    assert found.cosine_LPN.shape[::2] == (12, found.side**2) and np.abs(found.cosine_LPN).max() <= 1.0
    modules = phase_end(finished.study, "align", folder=finished.folder).modules
    ecg_encoder, cmr_encoder = modules["ecg_encoder"], modules["cmr_encoder"]
    ecg = modules["ecg_projection"](ecg_encoder.norm(ecg_encoder.tokens(person.ecg_1LT)))[0, 3, 1].numpy()
    batch = person.cohort.batch(
        np.array([person.row]), keys=frozenset({"cine"}), shape=shape_of(finished.study.models)
    )
    cmr = modules["cmr_projection"](cmr_encoder.tokens(batch.cine_BFYX))[0, 1 + 2].numpy()
    cosine = ecg @ cmr / np.linalg.norm(ecg) / np.linalg.norm(cmr)
    assert found.cosine_LPN[3, 1, 2] == pytest.approx(cosine, abs=1e-5)


def test_what_was_seen_stays_and_what_was_hidden_is_reconstructed(finished, cohorts):
    cines = masked_cines(finished.study, cohorts, folder=finished.folder)
    assert cines.sites == ("alpha", "gamma")
    assert cines.hidden_RYX.mean() == pytest.approx(0.75)
    seen = np.broadcast_to(~cines.hidden_RYX[:, None], cines.real_RFYX.shape)
    assert (cines.made_RFYX[seen] == cines.real_RFYX[seen]).all()
    assert (cines.made_RFYX[~seen] != cines.real_RFYX[~seen]).mean() > 0.99
    ecgs = masked_ecgs(finished.study, cohorts, folder=finished.folder)
    assert (np.isnan(ecgs.made_RLT) == ~ecgs.hidden_RLT).all()
    # As many patches are hidden in every lead.
    assert len(np.unique(ecgs.hidden_RLT.sum(axis=2))) == 1
    tokenized = tokenized_cines(finished.study, cohorts, folder=finished.folder)
    assert tokenized.made_RFYX.shape == cines.real_RFYX.shape and (tokenized.ssim_R < 1).all()


def test_the_reliability_curves_are_those_of_the_measurement(finished, cohorts):
    curves = reliability_curves(finished.study, cohorts, folder=finished.folder, external=frozenset())
    pooled = {
        entry["task"]: entry["test"]["pooled"] for entry in finished.result["rounds"] if "test" in entry
    }
    for moment, task in (("before", "screening"), ("after", "calibrate")):
        for place, disease in enumerate(DISEASES):
            if f"n/{disease}" in pooled[task]:
                assert curves[moment].rows_Db[place].sum() == pooled[task][f"n/{disease}"]
                assert curves[moment].error_D[place] == pytest.approx(pooled[task][f"ece/{disease}"])
    one = reliability_curves(finished.study, cohorts, folder=finished.folder, external=frozenset({"gamma"}))
    assert one["before"].rows_Db.sum() < curves["before"].rows_Db.sum()


def test_a_study_without_a_phase_has_nothing_to_show_of_it(finished, cohorts, person, consortium, tmp_path):
    few = Study.model_validate({**finished.study.model_dump(), "name": "few", "phases": PHASES[1:2]})
    done = run(few, consortium, tmp_path)
    where = {"folder": tmp_path}
    assert attribute_volume(few, person, **where) is None and compare_tokens(few, person, **where) is None
    assert masked_cines(few, cohorts, **where) is None and tokenized_cines(few, cohorts, **where) is None
    assert reliability_curves(few, cohorts, external=frozenset(), **where) == {}
    assert masked_ecgs(few, cohorts, **where) is not None
    table = result_table(done.result, tmp_path)
    assert "ecg_mae" in table and "AUROC" not in table and "memorisation" not in table


@pytest.mark.slow
def test_every_picture_is_drawn_with_its_numbers(finished, cohorts, tmp_path):
    shown = FinishedRun(
        study=finished.study,
        folder=finished.folder,
        result=finished.result,
        cohorts=cohorts,
        external=frozenset(),
    )
    names = plot_run(shown, out=tmp_path / "plots")
    # So few people have both classes at no site, or at one: the sites' picture may be absent.
    assert {*names, "sites.png"} == {
        *("rounds.png", "phenotypes.png", "sites.png", "calibration.png", "examples.png", "tokenizer.png"),
        *("masked_cines.png", "masked_ecgs.png", "attribution.png", "similarity.png"),
    }
    assert all((tmp_path / "plots" / name).stat().st_size > 5000 for name in names)
    with np.load(tmp_path / "plots" / "attribution.npz") as arrays:
        assert arrays["map_ml"].sum() == pytest.approx(arrays["attribution_ml"].sum())
