"""Retrieval ranks against plain loops; ties, galleries, chance."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.evaluation import add_sums, retrieval_metrics, retrieval_sums
from cardionets_core.evaluation.retrieval import DIRECTIONS, RANK_EDGES, draw_gallery, ranks


def make_pairs(rows: int, *, noise: float = 1.0, width: int = 16, seed: int = 0):
    rng = np.random.default_rng(seed)
    cmr = rng.normal(size=(rows, width))
    return cmr + noise * rng.normal(size=(rows, width)), cmr


def rank_by_loop(query: np.ndarray, entry: np.ndarray) -> list[int]:
    """Rank from 0 of each own entry, one cosine at a time."""
    found = []
    for own, q in enumerate(query):
        cosine = [q @ e / np.linalg.norm(q) / np.linalg.norm(e) for e in entry]
        found.append(sum(c >= cosine[own] for i, c in enumerate(cosine) if i != own))
    return found


def test_ranks_and_recalls_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr("cardionets_core.evaluation.retrieval.CHUNK_VALUES", 700)
    ecg, cmr = make_pairs(90)
    sums = retrieval_sums(ecg, cmr, patient_R=np.arange(90), seed=0)
    for direction, (query, entry) in zip(DIRECTIONS, ((ecg, cmr), (cmr, ecg)), strict=True):
        expected = np.array(rank_by_loop(query, entry))
        assert ranks(query, entry).tolist() == expected.tolist()
        found = retrieval_metrics(sums, direction=direction, gallery="full")
        for k in (1, 5, 10):
            assert found[f"recall@{k}"] == pytest.approx((expected < k).mean())
        assert found["median_rank"] == np.sort(expected)[44] + 1
        assert found["mean_rank_fraction"] == pytest.approx(expected.mean() / 89)
        assert found["gallery"] == found["queries"] == 90


def test_a_collapsed_model_comes_last():
    one = np.random.default_rng(1).normal(size=(1, 37))
    sums = retrieval_sums(np.repeat(one, 60, 0), np.repeat(one * 3, 60, 0), patient_R=np.arange(60), seed=0)
    for direction in DIRECTIONS:
        found = retrieval_metrics(sums, direction=direction, gallery="full")
        assert found["recall@10"] == 0.0 and found["median_rank"] == 60 and found["mean_rank_fraction"] == 1.0
    zero = retrieval_sums(np.zeros((60, 4)), np.ones((60, 4)), patient_R=np.arange(60), seed=0)
    assert retrieval_metrics(zero, direction="ecg_to_cmr", gallery="full")["median_rank"] == 60


def test_equal_towers_find_everything():
    _, cmr = make_pairs(300)
    sums = retrieval_sums(cmr * 2.0, cmr, patient_R=np.arange(300), seed=0)
    for gallery, size in (("full", 300), ("fixed", 256)):
        found = retrieval_metrics(sums, direction="cmr_to_ecg", gallery=gallery)
        assert found["recall@1"] == 1.0 and found["median_rank"] == 1.0
        assert found["queries"] == found["gallery"] == size


def test_a_gallery_holds_one_row_of_each_person():
    patient = np.array([5, 5, 5, 2, 2, 9])
    chosen = draw_gallery(patient, seed=3)
    assert sorted(patient[chosen]) == [2, 5, 9]
    assert {tuple(np.sort(draw_gallery(patient, seed=s))) for s in range(40)} == {
        (a, b, 5) for a in (0, 1, 2) for b in (3, 4)
    }
    ecg, cmr = make_pairs(6)
    assert retrieval_sums(ecg, cmr, patient_R=patient, seed=3)["full/queries"] == 3


def test_chance_is_what_random_embeddings_reach_and_pools_over_sites():
    rng = np.random.default_rng(4)
    sites = {
        name: retrieval_sums(*rng.normal(size=(2, rows, 24)), patient_R=np.arange(rows), seed=0)
        for name, rows in (("a", 1200), ("b", 300))
    }
    found = retrieval_metrics(add_sums(sites), direction="ecg_to_cmr", gallery="full")
    assert found["chance@10"] == pytest.approx(2 * 10 / 1500)
    assert found["recall@10"] == pytest.approx(found["chance@10"], abs=0.012)
    assert found["gallery"] == pytest.approx((1200**2 + 300**2) / 1500)
    assert found["mean_rank_fraction"] == pytest.approx(0.5, abs=0.03)
    fixed = retrieval_metrics(add_sums(sites), direction="ecg_to_cmr", gallery="fixed")
    assert fixed["queries"] == 512 and fixed["gallery"] == 256


def test_ranks_beyond_the_exact_bins_are_within_nine_percent():
    assert np.array_equal(RANK_EDGES[:256], np.arange(256))
    ratio = RANK_EDGES[256:] / RANK_EDGES[255:-1]
    assert ratio.max() < 1.1
    ecg, cmr = make_pairs(1500, noise=40.0)
    sums = retrieval_sums(ecg, cmr, patient_R=np.arange(1500), seed=0)
    exact = np.sort(ranks(ecg, cmr))[749] + 1
    found = retrieval_metrics(sums, direction="ecg_to_cmr", gallery="full")["median_rank"]
    assert exact > 300 and 0.91 * exact <= found <= exact


def test_a_site_without_rows_adds_nothing():
    ecg, cmr = make_pairs(30)
    full = retrieval_sums(ecg, cmr, patient_R=np.arange(30), seed=0)
    none = retrieval_sums(ecg[:0], cmr[:0], patient_R=np.arange(0), seed=0)
    added = add_sums({"a": full, "b": none})
    assert all(np.array_equal(added[name], full[name]) for name in full)
    assert retrieval_metrics(none, direction="ecg_to_cmr", gallery="full") == {}
