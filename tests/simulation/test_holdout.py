"""Leave-one-site-out: who trained, who is measured, and what is added."""

from dataclasses import replace

import numpy as np
import pytest

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import empty_cohort
from cardionets_core.errors import OrderRefusedError
from cardionets_core.tasks.base import count_sums
from cardionets_core.tasks.phenotype_sums import phenotype_sums
from simulation.holdout import LeftOut, holdout_scores, study_without

PHASES = [
    {"task": name, "rounds": 1, "local_steps": 1, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    for name in ("ecg_mae", "tokenizer")
]
STUDY = Study.model_validate(
    {
        "name": "s" * 60,
        "seed": 3,
        "sites": {"minimum": 2},
        "phases": [*PHASES, {"task": "probe", "rounds": 1}],
    }
)


def measured(site, people, *, error, seed):
    """What a site sends of a probe that is off by ``error`` SDs in two phenotypes."""
    rng, rows = np.random.default_rng(seed), np.arange(people)
    cohort = replace(
        empty_cohort(site=site, phenotypes=82), row_patient=rows, phenotypes=np.zeros((people, 82))
    )
    cohort = replace(cohort, row_age_years=np.full(people, 50.0), row_sex=np.zeros(people, dtype=np.int8))
    target = np.full((people, 82), np.nan)
    target[:, :2] = rng.normal(size=(people, 2))
    predicted = np.nan_to_num(target) + rng.normal(0, error, (people, 82))
    sums = phenotype_sums(target, predicted, cohort=cohort, rows=rows, replicates=50, seed=1)
    return {**count_sums(cohort, rows), **sums}, target[:, :2], predicted[:, :2]


def test_the_study_of_the_others_draws_no_cines_and_has_a_digest_of_its_own():
    first, second = study_without(STUDY, "alpha"), study_without(STUDY, "beta")
    assert [phase.task for phase in first.phases] == ["ecg_mae", "probe"]
    assert len({first.digest, second.digest, STUDY.digest}) == 3
    assert first.seed == second.seed == STUDY.seed and first.sites.minimum == 1
    # Sites check every study that they are sent.
    assert Study.model_validate_json(first.to_json()) == first


def test_each_site_stands_alone_and_every_patient_once_in_the_pool():
    a, target_a, predicted_a = measured("a", 30, error=0.2, seed=1)
    b, target_b, predicted_b = measured("b", 50, error=0.9, seed=2)
    found = [
        LeftOut(site="a", seed=3, trained=("b", "c"), sums={"probe": a}),
        LeftOut(site="b", seed=3, trained=("a", "c"), sums={"probe": b}),
        LeftOut(site="c", seed=3, trained=("a", "b"), sums={}),
    ]
    scores = {(score.arm, score.population): score for score in holdout_scores(found, STUDY)}
    assert set(scores) == {("without:a", "a"), ("without:b", "b"), ("left-out", "members")}
    target, predicted = np.concatenate([target_a, target_b]), np.concatenate([predicted_a, predicted_b])
    r2 = 1 - ((target - predicted) ** 2).sum(axis=0) / ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    pool = scores["left-out", "members"]
    assert pool.mean == pytest.approx(r2.mean()) and pool.patients == 80
    assert scores["without:a", "a"].mean > pool.mean > scores["without:b", "b"].mean
    assert scores["without:a", "a"].patients == 30 and len(pool.replicates) == 50


def test_a_site_that_trained_its_own_model_is_refused():
    sums, _, _ = measured("a", 30, error=0.2, seed=1)
    with pytest.raises(OrderRefusedError, match="a trained the model"):
        holdout_scores([LeftOut(site="a", seed=3, trained=("a", "b"), sums={"probe": sums})], STUDY)


def test_seeds_are_not_mixed():
    sums, _, _ = measured("a", 30, error=0.2, seed=1)
    found = [LeftOut(site="a", seed=seed, trained=("b",), sums={"probe": sums}) for seed in (3, 4)]
    scores = holdout_scores(found, STUDY)
    assert [(score.arm, score.patients) for score in scores] == [("without:a", 30), ("left-out", 30)] * 2
