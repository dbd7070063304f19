"""What is added over unequal sites, one of them empty, is what one place would compute (SCIENCE 7, 8.10)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, roc_auc_score

from cardionets_core.evaluation import (
    add_sums,
    auroc,
    auroc_bound,
    case_psnr,
    case_ssim,
    confusion_at,
    image_metrics,
    image_sums,
    nearest_edge,
    rates,
    retrieval_metrics,
    retrieval_sums,
    score_histograms,
)
from cardionets_core.evaluation.retrieval import ranks
from cardionets_core.tasks.subtype_scores import subtype_metrics, subtype_score_sums

CUTS = {"b": slice(0, 140), "a": slice(140, 147), "c": slice(147, 147), "d": slice(147, 400)}
EXACT = 1e-9


def pooled(sums_of) -> dict[str, np.ndarray]:
    return add_sums({site: sums_of(cut) for site, cut in CUTS.items()})


def test_confusion_at_a_threshold_and_what_follows_from_it():
    rng = np.random.default_rng(0)
    label = (rng.random((400, 1)) < 0.3).astype(float)
    logit = rng.normal(size=(400, 1)) + 1.5 * label - 0.5
    sums = pooled(lambda cut: score_histograms(logit[cut], label[cut]))
    threshold = nearest_edge(0.3)
    called, y = logit[:, 0] >= threshold, label[:, 0]
    found = rates(confusion_at(sums, np.array([threshold])))
    (well, alarms), (missed, hits) = confusion_matrix(y, called)
    expected = {
        "sensitivity": hits / (hits + missed),
        "specificity": well / (well + alarms),
        "ppv": hits / (hits + alarms),
        "npv": well / (well + missed),
        "accuracy": (hits + well) / 400,
        "f1": f1_score(y, called),
        "kappa": cohen_kappa_score(y, called),
    }
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=EXACT), name
    assert abs(auroc(sums)[0] - roc_auc_score(y, logit[:, 0])) <= auroc_bound(sums)[0] + EXACT


def test_images_with_their_deviations():
    draw = torch.Generator().manual_seed(0)
    real = torch.rand(400, 1, 12, 12, generator=draw) * 2 - 1
    made = real + 0.3 * torch.randn(real.shape, generator=draw)
    found = image_metrics(pooled(lambda cut: image_sums(made[cut], real[cut])))
    for name, metric in (("ssim", case_ssim), ("psnr", case_psnr)):
        values = metric(made, real).numpy()
        assert found[name] == pytest.approx(values.mean(), abs=EXACT)
        assert found[f"{name}_sd"] == pytest.approx(values.std(ddof=1), abs=EXACT)


@pytest.mark.parametrize("direction", ["ecg_to_cmr", "cmr_to_ecg"])
def test_retrieval_in_the_sites_own_galleries(direction):
    rng = np.random.default_rng(1)
    cmr = rng.normal(size=(400, 6))
    ecg = cmr + 0.7 * rng.normal(size=cmr.shape)
    sums = pooled(lambda cut: retrieval_sums(ecg[cut], cmr[cut], patient_R=np.arange(400)[cut], seed=0))
    found = retrieval_metrics(sums, direction=direction, gallery="full")
    query, entry = (ecg, cmr) if direction == "ecg_to_cmr" else (cmr, ecg)
    rank = np.concatenate([ranks(query[cut], entry[cut]) for cut in CUTS.values() if cut.stop > cut.start])
    for k in (1, 5, 10):
        assert found[f"recall@{k}"] == pytest.approx((rank < k).mean(), abs=EXACT)
    assert found["median_rank"] == np.sort(rank)[199] + 1
    assert found["queries"] == 400


def test_subtypes_one_against_the_rest():
    rng = np.random.default_rng(2)
    true = rng.integers(0, 3, 400)
    label = np.eye(3)[true]
    label[::9] = np.nan
    logit = rng.normal(size=(400, 3)) + 1.2 * np.eye(3)[true]
    added = pooled(lambda cut: subtype_score_sums(logit[cut], label[cut]))
    whole = subtype_score_sums(logit, label)
    assert added.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(added[name], value, rtol=0, atol=EXACT)
    known = ~np.isnan(label[:, 0])
    share = np.exp(logit[known]) / np.exp(logit[known]).sum(axis=1, keepdims=True)
    macro = roc_auc_score(true[known], share, multi_class="ovr", average="macro")
    assert subtype_metrics(added)["subtype_auroc_macro"] == pytest.approx(macro, abs=0.01)
    assert np.array_equal(added["subtype_confusion"], confusion_matrix(true[known], share.argmax(axis=1)))
