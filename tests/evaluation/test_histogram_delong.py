"""DeLong's variance from histograms is that of the scores rounded to their bins."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.evaluation import delong, score_histograms
from cardionets_core.evaluation.histogram_delong import auroc_variance
from cardionets_core.evaluation.histograms import CENTRES, bin_of


@pytest.mark.parametrize("spread", [0.01, 2.0])
def test_it_equals_delong_on_binned_scores(spread):
    rng = np.random.default_rng(0)
    label = (rng.random((300, 2)) < [0.1, 0.5]).astype(float)
    label[rng.random((300, 2)) < 0.1] = np.nan
    score = spread * (rng.normal(size=(300, 2)) + np.nan_to_num(label))
    found = auroc_variance(score_histograms(score, label))
    for column in range(2):
        binned = CENTRES[bin_of(score[:, column])]
        expected = delong(binned[None], label[:, column]).covariance_MM[0, 0]
        assert found[column] == pytest.approx(expected, rel=1e-9)


def test_one_row_of_a_class_has_no_variance():
    score, label = np.arange(4.0)[:, None], np.array([[1.0], [0.0], [0.0], [0.0]])
    assert np.isnan(auroc_variance(score_histograms(score, label))).all()
    assert np.isnan(auroc_variance(score_histograms(score[:0], label[:0]))).all()
