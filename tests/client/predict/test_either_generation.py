"""A model with parts of the earlier generation predicts, draws and explains as one of the later does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.window_kinds import windows_of
from cardionets_core.data.windows import evaluation_starts
from cardionets_core.prediction.diseases import predict_diseases
from cardionets_core.prediction.phenotypes import predict_phenotypes
from cardionets_core.prediction.predictor import open_predictor
from cardionets_core.training.model_folder import read_model_folder
from client.predict.cine import draw_cine
from client.predict.content import prediction_content
from client.predict.explain import explain, target_named
from client.predict.lines import prediction_lines
from client.predict.page import render_page

CPU = torch.device("cpu")
PARTS = [
    {"generation": "cardiacnets"},
    {"parts": {"ecg_encoder": "vit"}},
    {"parts": {"cmr_generator": "diffusion"}},
]


@pytest.fixture(scope="module", params=PARTS, ids=["cardiacnets", "vit", "diffusion"])
def earlier(request, make_model, study):
    content = {**json.loads(study.to_json()), **request.param}
    return open_predictor(read_model_folder(make_model(study=Study.model_validate(content))), device=CPU)


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(4).normal(0, 300, (12, 760)).astype(np.int16)


def test_it_can_do_all_that_its_modules_can(earlier):
    assert set(earlier.parts) == {"phenotypes", "screening", "cine"} and not earlier.lacking
    takes_tokens = earlier.preset.parts.cmr_generator == "diffusion"
    assert (
        ("diffusion_head" in earlier.modules) == ("ecg_projection" in earlier.modules) == (not takes_tokens)
    )


def test_the_feature_is_the_mean_of_its_own_kind_of_windows(earlier, counts):
    shape = earlier.view(counts).shape
    starts = np.array(evaluation_starts(760, shape.ecg_samples))
    zeros = np.zeros(len(starts), dtype=np.int64)
    windows = windows_of(shape, counts.reshape(-1), zeros, zeros + 760, starts)
    image = earlier.preset.parts.ecg_encoder == "vit"
    assert windows.shape == (3, 12, 1000 if image else 750)
    assert (np.abs(windows).max(axis=2) == 1.0).all() == image
    with torch.no_grad():
        wanted = earlier.modules["ecg_encoder"](torch.from_numpy(windows)).mean(dim=0)
    assert torch.allclose(earlier.feature(counts)[0], wanted, atol=1e-5)
    # Two seconds of a recording at 250 Hz make a window at 500; less is taken in whole patches.
    least = 500 if image else 750
    assert earlier.is_short(counts[:, : least - 1]) and not earlier.is_short(counts[:, :least])
    assert earlier.feature(counts[:, :260]).isfinite().all()


def test_a_cine_follows_from_its_seed_and_from_the_ecg(earlier, counts):
    own, others = earlier.condition(counts), earlier.condition(counts[:, ::-1].copy())
    drawn = draw_cine(earlier, own, seed=5).pixels
    assert np.array_equal(drawn, draw_cine(earlier, own, seed=5).pixels)
    assert not np.array_equal(drawn, draw_cine(earlier, own, seed=6).pixels)
    if earlier.preset.parts.cmr_generator == "mar":
        return
    assert torch.allclose(own[:, 0], earlier.feature(counts), atol=1e-5)
    assert own.shape == (1, 1 + earlier.preset.ecg_patches, earlier.preset.ecg_encoder.width)
    # The output layer begins at zero: only once it is trained does the ECG show.
    generator = earlier.modules["cmr_generator"]
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(3))
    assert not np.array_equal(
        draw_cine(earlier, own, seed=5).pixels, draw_cine(earlier, others, seed=5).pixels
    )


def test_heads_and_attributions_agree(earlier, counts):
    feature = earlier.feature(counts)
    (lvedv, lvef) = predict_phenotypes(earlier, feature)
    assert np.isfinite([lvedv.value, lvef.value]).all()
    assert all(0.0 < each.probability < 1.0 for each in predict_diseases(earlier, feature).diseases)
    found = explain(earlier, counts, target_named("24103"))
    assert found.map_LS.shape == (12, -(-760 // 25))
    assert found.map_LS.sum() == pytest.approx(found.output - found.baseline - found.missed, rel=1e-6)


def test_who_predicts_without_age_and_sex_is_told_that_the_errors_were_measured_with_them(make_model, study):
    for models, told in (("vit-film", True), ("vit", False)):
        content = {**json.loads(study.to_json()), "parts": {"ecg_encoder": models}}
        folder = make_model(study=Study.model_validate(content))
        found = prediction_content(open_predictor(read_model_folder(folder), device=CPU), [])
        assert any("age and sex" in line for line in prediction_lines(found)) == told
        assert ("age and sex" in render_page(found, [], made_on="today")) == told
