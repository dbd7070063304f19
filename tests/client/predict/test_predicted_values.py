"""What is predicted equals what evaluation computes on the same recordings, and says how far it goes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from cardionets_core.config.site import read_site
from cardionets_core.data.prepare import prepare
from cardionets_core.data.records import DISEASES, SUBTYPES
from cardionets_core.data.windows import evaluation_starts
from cardionets_core.prediction.diseases import predict_diseases
from cardionets_core.prediction.phenotypes import predict_phenotypes
from cardionets_core.prediction.predictor import open_predictor
from cardionets_core.tasks import make_task
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.tasks.site_view import SiteView
from cardionets_core.training.model_folder import read_model_folder
from client.predict.reading import hear, named_recordings

CPU = torch.device("cpu")


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.asarray(x, dtype=np.float64)))


@pytest.fixture(scope="module")
def evaluated(made_once, tmp_path_factory):
    """A hospital's prepared cohort, and its ECG files as ``predict`` reads them, by their packed bytes."""
    # A copy: other tests begin with a hospital that was never prepared.
    folder = tmp_path_factory.mktemp("prepared") / "alpha"
    shutil.copytree(made_once.folder, folder, copy_function=shutil.copy2)
    config = read_site(folder / "site.yaml")
    cohort = prepare(config)
    heard = [each for each in hear(named_recordings([folder / "ecg"])) if each.counts is not None]
    by_bytes = {each.counts.tobytes(): each for each in heard}
    return cohort, by_bytes


def test_the_file_is_packed_to_the_bytes_of_the_cache(evaluated):
    cohort, by_bytes = evaluated
    records = np.unique(cohort.row_ecg[cohort.row_ecg >= 0])
    assert len(records) >= 8
    for record in records:
        begin, samples = 12 * int(cohort.ecg_offsets[record]), int(cohort.ecg_samples[record])
        assert cohort.ecg_counts[begin : begin + 12 * samples].tobytes() in by_bytes


def test_predictions_equal_those_that_the_tasks_evaluate(evaluated, predictor):
    cohort, by_bytes = evaluated
    site = SiteView(cohort=cohort, shape=shape_of("nano"), device=CPU)
    phenotype, calibrate = make_task("phenotype", {}), make_task("calibrate", {})
    standardiser, calibration = (
        predictor.modules[name] for name in ("phenotype_standardiser", "screening_calibration")
    )
    compared = 0
    for split in ("train", "validation", "test"):
        rows = site.rows(phenotype.needs, split)
        values = phenotype.evaluated(predictor.modules, site, split=split).numpy()
        values = values * standardiser.deviation.double().numpy() + standardiser.mean.double().numpy()
        logits, _ = calibrate._scores(predictor.modules, site, split)
        logits = logits * calibration.slope.double().numpy() + calibration.intercept.double().numpy()
        by_row = dict(zip(site.rows(calibrate.needs, split).tolist(), logits, strict=True))
        for place, row in enumerate(rows):
            record = int(cohort.row_ecg[row])
            begin, samples = 12 * int(cohort.ecg_offsets[record]), int(cohort.ecg_samples[record])
            heard = by_bytes[cohort.ecg_counts[begin : begin + 12 * samples].tobytes()]
            feature = predictor.feature(heard.counts)
            for found in predict_phenotypes(predictor, feature):
                assert found.value == pytest.approx(values[place, found.phenotype.field - 24100], rel=1e-5)
            for found in predict_diseases(predictor, feature).diseases:
                expected = sigmoid(by_row[int(row)])[DISEASES.index(found.disease)]
                assert found.probability == pytest.approx(expected, rel=1e-5)
            compared += 1
    assert compared >= 8


def test_phenotypes_carry_range_interval_and_held_out_error(predictor):
    counts = np.random.default_rng(1).normal(0, 300, (12, 2500)).astype(np.int16)
    lvedv, lvef = predict_phenotypes(predictor, predictor.feature(counts))
    assert (lvedv.phenotype.unit, lvef.phenotype.unit) == ("mL", "%")
    assert (lvef.reference_low, lvef.reference_high) == pytest.approx(
        (60 - 1.96 * 7, 60 + 1.96 * 7), abs=1e-3
    )
    assert (lvef.low, lvef.high) == pytest.approx((lvef.value - 9.8, lvef.value + 9.8), abs=1e-3)
    assert lvef.r2 == 0.4 and lvef.beats_mean is True and lvedv.beats_mean is False


def test_a_probe_alone_predicts_without_a_range(make_model):
    folder = make_model(("ecg_encoder", "phenotype_probe"), metrics={"phenotype": {"r2/24103": 0.4}})
    model = open_predictor(read_model_folder(folder), device=CPU)
    counts = np.random.default_rng(1).normal(0, 300, (12, 1000)).astype(np.int16)
    found = predict_phenotypes(model, model.feature(counts))
    probe = model.modules["phenotype_probe"]
    with torch.no_grad():
        expected = probe(model.feature(counts))[0]
    assert [each.value for each in found] == pytest.approx(expected.tolist(), rel=1e-6)
    # The study measured its head, not this probe.
    assert {each.reference_low for each in found} == {each.r2 for each in found} == {None}
    with torch.no_grad():
        probe.weight[5], probe.bias[5] = 0.0, 0.0
    assert 24105 not in [each.phenotype.field for each in predict_phenotypes(model, model.feature(counts))]
    assert set(model.lacking) == {"screening", "cine"}


def test_probabilities_are_calibrated_and_thresholds_set_where_the_study_did(predictor):
    counts = np.random.default_rng(2).normal(0, 300, (12, 2500)).astype(np.int16)
    feature = predictor.feature(counts)
    screened = predict_diseases(predictor, feature)
    with torch.no_grad():
        raw = predictor.modules["screening_head"](feature)[0].double().numpy()
    by_name = {each.disease: each for each in screened.diseases}
    assert list(by_name) == ["cad", "cm", "hf", "ph"]  # nobody was ever assessed for pc
    cad, hf, ph = by_name["cad"], by_name["hf"], by_name["ph"]
    assert cad.probability == pytest.approx(sigmoid(0.5 * (raw[0] - 1.0) + 0.1), rel=1e-6)
    assert cad.threshold == pytest.approx(sigmoid(-1.0)) and cad.prevalence == pytest.approx(sigmoid(-1.0))
    assert cad.above_threshold == (cad.probability >= cad.threshold)
    assert hf.above_threshold is False and hf.threshold > 0.999
    assert (ph.calibrated, ph.threshold, ph.above_threshold) == (False, None, None)
    assert ph.probability == pytest.approx(sigmoid(raw[4] - 3.0), rel=1e-6)
    assert cad.held_out["auroc"] == 0.8 and cad.held_out["ece"] == 0.02  # that of what is shown
    shares = np.exp(raw[5:] + np.log([0.2, 0.5, 0.3]))
    assert list(screened.subtypes) == list(SUBTYPES)
    assert list(screened.subtypes.values()) == pytest.approx(shares / shares.sum(), rel=1e-5)


def test_without_a_calibration_the_heads_own_error_stands_beside_it(make_model):
    names = ("ecg_encoder", "screening_head", "screening_prior")
    model = open_predictor(read_model_folder(make_model(names)), device=CPU)
    counts = np.random.default_rng(2).normal(0, 300, (12, 2500)).astype(np.int16)
    cad = predict_diseases(model, model.feature(counts)).diseases[0]
    assert (cad.calibrated, cad.threshold) == (False, None) and cad.held_out["ece"] == 0.2


def test_a_short_recording_is_taken_in_whole_patches(predictor):
    """At 9 s windows, 7.13 s are 1,782 samples, of which 23 patches of 75 fit at three places."""
    model = replace(predictor, preset=replace(predictor.preset, name="small", ecg_samples=2250))
    counts = np.random.default_rng(3).normal(0, 300, (12, 1782)).astype(np.int16)
    view = model.view(counts)
    assert view.shape.ecg_samples == 1725 and model.is_short(counts)
    assert evaluation_starts(1782, 1725) == (0, 28, 57)

    class Mean(torch.nn.Module):
        def forward(self, ecg_BLT):
            assert ecg_BLT.shape[1:] == (12, 1725)
            return ecg_BLT[:, 0, :2]

    windows = [counts[:, s : s + 1725].astype(np.float64) for s in (0, 28, 57)]
    expected = np.mean([((w - w.mean()) / w.std())[0, :2] for w in windows], axis=0)
    found = ecg_features(Mean(), view, np.zeros(1, dtype=np.int64))
    assert found[0].numpy() == pytest.approx(expected, abs=1e-5)
