"""An attribution adds up to the change of what is predicted, and lies where its picture shows it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from cardionets_core.data.records import LEADS
from cardionets_core.errors import UsageError
from cardionets_core.prediction.diseases import predict_diseases
from cardionets_core.prediction.phenotypes import predict_phenotypes
from client.predict.explain import BIN_SAMPLES, Explained, Target, can_explain, explain, target_named
from client.predict.explain_picture import LOWERS, RAISES, cells_svg
from client.report.strips import lay_out


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(4).normal(0, 300, (12, 760)).astype(np.int16)


def test_the_map_adds_up_to_output_less_flat_trace(predictor, counts):
    found = explain(predictor, counts, target_named("24103"))
    assert found.map_LS.shape == (12, -(-760 // BIN_SAMPLES))
    assert found.map_LS.sum() == pytest.approx(found.output - found.baseline - found.missed, rel=1e-9)
    assert abs(found.missed) < 0.05 * np.abs(found.map_LS).sum()
    assert sum(found.lead_shares.values()) == pytest.approx(1.0)


def test_the_output_is_what_is_predicted_from_a_single_window(predictor):
    counts = np.random.default_rng(5).normal(0, 300, (12, 750)).astype(np.int16)
    feature = predictor.feature(counts)
    lvef = next(each for each in predict_phenotypes(predictor, feature) if each.phenotype.field == 24103)
    assert explain(predictor, counts, target_named("24103")).output == pytest.approx(lvef.value, rel=1e-5)
    cad = predict_diseases(predictor, feature).diseases[0].probability
    log_odds = explain(predictor, counts, target_named("cad")).output
    assert log_odds == pytest.approx(np.log(cad / (1 - cad)), rel=1e-4)


def test_a_lead_that_the_model_does_not_read_has_no_share(predictor, counts, monkeypatch):
    class OneLead(torch.nn.Module):
        def forward(self, ecg_BLT):
            return ecg_BLT[:, 3, 100:110].pow(2).sum(dim=1, keepdim=True).expand(-1, 64)

    monkeypatch.setitem(predictor.modules, "ecg_encoder", OneLead())
    found = explain(predictor, counts, target_named("cm"))
    assert found.lead_shares["aVR"] == pytest.approx(1.0)
    # Windows begin at samples 0, 5 and 10, so samples 100 to 120 are read: bin 4.
    assert np.flatnonzero(found.map_LS[3]).tolist() == [4]


def test_only_what_is_predicted_is_explained(predictor):
    assert can_explain(predictor, target_named("24103")) and not can_explain(predictor, target_named("24104"))
    assert can_explain(predictor, target_named("ph")) and not can_explain(predictor, target_named("pc"))
    assert target_named("lv_ejection_fraction_percent") == target_named("24103")
    with pytest.raises(UsageError) as raised:
        target_named("24182")
    assert "24100 to 24181" in raised.value.remedy


def test_cells_lie_under_their_beats():
    values = np.zeros((12, 100))
    values[1, 10], values[6, 0], values[2, 50] = 2.0, -1.0, 0.02
    target = Target(part="screening", name="cad", column=0, unit="log odds")
    found = Explained(target=target, map_LS=values, output=0.0, baseline=0.0, missed=0.0)
    strip = lay_out(np.zeros((12, 2500)), fs_hz=250.0)
    cells = re.findall(
        r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" .*?fill="(.*?)"', cells_svg(found, strip)
    )
    (x1, y1, width, raises), (x2, _, _, lowers) = cells  # the faintest is left out
    assert (raises, lowers) == (RAISES, LOWERS)
    per_second = strip.lines[0].pieces[0][-1, 0] / (2499 / 250)
    assert float(x1) == pytest.approx(1.0 * per_second, abs=0.1) and float(width) == pytest.approx(
        0.1 * per_second
    )
    line = strip.lines[LEADS.index("II")]
    assert abs(float(y1) + 19.8 - line.middle_px) < 0.1 and float(x2) == strip.lines[6].left_px
