"""Arms side by side: averages over seeds, paired differences, Holm over the measured phenotypes."""

import numpy as np
import pytest

from simulation.compare import summarise
from simulation.differences import column_rows, difference_row
from simulation.scoring import Columns, Score

M = 200


def score(arm, mean, *, spread=0.01, seed=0, population="members", patients=40, columns=None):
    noise = np.random.default_rng(seed).normal(0.0, spread, M)
    words = {"task": "phenotype", "metric": "r2_mean", "population": population, "patients": patients}
    return Score(arm=arm, mean=mean, replicates=mean + noise, columns=columns, **words)


def columns(r2, *, spread=0.01, seed=0):
    r2 = np.array(r2, dtype=np.float64)
    return Columns(r2_K=r2, replicates_MK=r2 + np.random.default_rng(seed).normal(0.0, spread, (M, len(r2))))


def padded(*r2):
    return [*r2, *[np.nan] * (82 - len(r2))]


def test_a_difference_is_paired_inside_each_replicate():
    # The same people: both arms move together, and their difference not at all.
    row = difference_row([score("federated", 0.4, spread=0.3)], [score("pooled", 0.5, spread=0.3)])
    assert row["mean"] == pytest.approx(-0.1)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-0.1, -0.1))
    assert row["p"] == pytest.approx(2 / (M + 1))
    same = difference_row([score("federated", 0.4)], [score("pooled", 0.4)])
    assert same["mean"] == 0.0 and same["p"] == 1.0


def test_seeds_are_averaged_before_they_are_compared():
    ours, theirs = [score("federated", 0.4), score("federated", 0.2)], [score("pooled", 0.1)]
    assert difference_row(ours, theirs)["mean"] == pytest.approx(0.2)
    rows = summarise([*ours, *theirs], arms=["federated", "pooled"])["comparison"]
    assert rows[0]["mean"] == pytest.approx(0.3) and rows[0]["seeds"] == 2
    assert rows[0]["by_seed"] == [0.4, 0.2]


def test_phenotypes_are_compared_where_both_arms_measured_them_and_adjusted_after_holm():
    ours = columns(padded(0.5, 0.3, 0.2, np.nan), seed=1)
    theirs = columns(padded(0.1, 0.3, np.nan, 0.4), seed=2)
    found = column_rows([score("federated", 0, columns=ours)], [score("unaligned", 0, columns=theirs)])
    assert [row["field"] for row in found] == [24100, 24101]
    assert found[0]["name"] == "lv_end_diastolic_volume_ml"
    assert (found[0]["r2"], found[0]["r2_other"]) == (0.5, 0.1)
    assert found[0]["difference"] == pytest.approx(0.4) and found[0]["ci_low"] > 0.3
    p = [row["p"] for row in found]
    # Holm by hand: the smaller twice, the larger once and never below the smaller.
    assert found[0]["p_holm"] == pytest.approx(2 * p[0])
    assert found[1]["p_holm"] == pytest.approx(max(p[1], 2 * p[0]))
    assert column_rows([score("federated", 0)], [score("unaligned", 0)]) == []


def test_a_phenotype_that_one_seed_did_not_measure_is_not_compared():
    first, second = columns(padded(0.5, 0.3)), columns(padded(0.5, np.nan))
    ours = [score("federated", 0, columns=first), score("federated", 0, columns=second)]
    assert [row["field"] for row in column_rows(ours, [score("unaligned", 0, columns=first)])] == [24100]


def test_only_the_unaligned_arm_is_compared_phenotype_by_phenotype():
    each = [score(arm, 0.3, columns=columns(padded(0.3))) for arm in ("federated", "unaligned", "pooled")]
    found = summarise(each, arms=["federated", "unaligned", "pooled"])["differences"]
    assert [(row["arm"], "columns" in row) for row in found] == [("unaligned", True), ("pooled", False)]


def test_a_left_out_site_is_compared_with_the_whole_federation_on_its_own_patients():
    scores = [
        score("federated", 0.4),
        score("left-out", 0.3),
        score("federated", 0.5, population="a", patients=20),
        score("without:a", 0.1, population="a", patients=20),
    ]
    found = summarise(scores, arms=["federated", "pooled"], left_out=["a", "b"])
    rows = [(row["arm"], row["population"], row["mean"]) for row in found["comparison"]]
    assert rows == [
        ("federated", "members", 0.4),
        ("pooled", "members", None),
        ("left-out", "members", 0.3),
        ("federated", "a", 0.5),
        ("without:a", "a", 0.1),
    ]
    differences = {(row["arm"], row["population"]): row["mean"] for row in found["differences"]}
    assert differences == pytest.approx({("left-out", "members"): 0.1, ("without:a", "a"): 0.4})


def test_left_out_patients_that_are_not_all_of_them_are_not_compared():
    scores = [score("federated", 0.4, patients=40), score("left-out", 0.3, patients=30)]
    found = summarise(scores, arms=["federated"], left_out=["a"])
    assert found["comparison"][1]["mean"] is None and found["differences"] == []
