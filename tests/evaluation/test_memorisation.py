"""SCIENCE 8.18: a generator that returns training latents is flagged, one that makes fresh samples passes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binom

from cardionets_core.evaluation import Latents, add_sums, judge_memorisation, memorisation_sums
from cardionets_core.evaluation.memorisation import duplicate_threshold, nearest

SHAPE = (4, 2, 4, 4)
CASES = 120


def make_real(rng: np.random.Generator, count: int = CASES) -> np.ndarray:
    """Latents of hearts: twelve factors and some noise around a common mean."""
    mixing = np.random.default_rng(99).normal(size=(12, int(np.prod(SHAPE))))
    values = 2.0 + rng.normal(size=(count, 12)) @ mixing + 0.5 * rng.normal(size=(count, mixing.shape[1]))
    return values.reshape(count, *SHAPE).astype(np.float32)


def judge(seed: int, *, held_out_model, training_model):
    """Verdict on two sites; a model gets the real latents of its ECGs and the training latents."""
    sums = {}
    for site in "ab":
        rng = np.random.default_rng([seed, ord(site)])
        training, held_out = make_real(rng), make_real(rng)
        sums[site] = memorisation_sums(
            Latents(
                training=training,
                held_out=held_out,
                from_held_out=held_out_model(rng, held_out, training),
                from_training=training_model(rng, training, training),
            ),
            seed=seed,
        )
    return judge_memorisation(add_sums(sums))


def fresh(rng, own, training):
    """Another heart each time."""
    return make_real(rng, len(own))


def faithful(rng, own, training):
    """Follows its ECG: near the true heart, but no copy."""
    return own + 1.5 * rng.normal(size=own.shape)


def copied(rng, own, training):
    """Returns any training latent, a hair off."""
    return training[rng.integers(0, len(training), size=len(own))] + 1e-3 * rng.normal(size=own.shape)


def recited(rng, own, training):
    """Returns the training latent of the very ECG; on an ECG it does not know, a fresh one."""
    return own if own is training else make_real(rng, len(own))


@pytest.mark.parametrize("model", [fresh, faithful])
def test_a_model_that_makes_fresh_samples_passes(model):
    verdicts = [judge(seed, held_out_model=model, training_model=fresh) for seed in range(12)]
    assert all(v.conclusive for v in verdicts)
    assert sum(v.passes for v in verdicts) >= 11
    assert np.mean([v.training_share for v in verdicts]) == pytest.approx(0.5, abs=0.04)


def test_a_model_that_returns_training_latents_is_flagged_by_both_questions():
    verdict = judge(0, held_out_model=copied, training_model=copied)
    assert verdict.training_share == 1.0 and verdict.sample_duplicates == 1.0
    assert not (verdict.nearest_passes or verdict.duplicates_pass or verdict.passes)


def test_a_model_that_knows_only_its_own_cases_is_flagged_by_the_duplicates():
    verdict = judge(1, held_out_model=recited, training_model=recited)
    assert verdict.nearest_passes and not verdict.duplicates_pass and not verdict.passes


def test_a_model_that_always_returns_one_training_case_is_flagged():
    def one(rng, own, training):
        return np.repeat(training[:1], len(own), axis=0)

    verdict = judge(2, held_out_model=one, training_model=one)
    assert not verdict.duplicates_pass and not verdict.passes


def test_a_model_that_copies_one_in_five_is_flagged():
    def sometimes(rng, own, training):
        found = make_real(rng, len(own))
        found[::5] = training[rng.integers(0, len(training), size=len(found[::5]))]
        return found

    assert not judge(3, held_out_model=sometimes, training_model=sometimes).passes


def test_without_repeated_hits_the_limits_are_the_binomial_ones():
    sums = {name: np.array([0.0]) for name in ("sample_duplicates", "held_out_duplicates")}
    sums |= {name: np.array([100.0]) for name in ("votes", "hits_squared", "samples", "held_out_cases")}
    low, high = binom.interval(0.99, 100, 0.5)
    for training, passes in ((low - 1, False), (low, True), (50, True), (high, True), (high + 1, False)):
        verdict = judge_memorisation({**sums, "votes_training": np.array([training])})
        assert (verdict.lowest_share, verdict.highest_share) == (low / 100, high / 100)
        assert verdict.nearest_passes == verdict.passes == passes
    repeated = judge_memorisation(
        {**sums, "votes_training": np.array([50.0]), "hits_squared": np.array([400.0])}
    )
    assert repeated.effective_votes == 25 and repeated.lowest_share < low / 100


def test_each_vote_is_among_equally_many_of_both_kinds_and_not_for_the_own_person():
    rng = np.random.default_rng(5)
    training, held_out = make_real(rng, 300), make_real(rng, 40)
    kept = Latents(training=training, held_out=held_out, from_held_out=held_out, from_training=held_out[:0])
    sums = memorisation_sums(kept, seed=0)
    # Samples that equal the truth exactly: the truth is left out, so the vote is open.
    assert sums["votes"] == 40 and 8 < sums["votes_training"][0] < 32
    few = Latents(training=training[:5], held_out=held_out, from_held_out=held_out, from_training=training)
    assert memorisation_sums(few, seed=0)["votes"] == 6


def test_votes_and_hits_are_those_of_a_loop():
    rng = np.random.default_rng(9)
    training, held_out, samples = (make_real(rng, n).reshape(n, -1) for n in (24, 25, 25))
    sums = memorisation_sums(
        Latents(training=training, held_out=held_out, from_held_out=samples, from_training=samples), seed=0
    )
    hits: dict[tuple[str, int], int] = {}
    for own, sample in enumerate(samples):
        cases = [("training", i, np.linalg.norm(sample - x)) for i, x in enumerate(training)]
        cases += [("held out", i, np.linalg.norm(sample - x)) for i, x in enumerate(held_out) if i != own]
        kind, index, _ = min(cases, key=lambda case: case[2])
        hits[kind, index] = hits.get((kind, index), 0) + 1
    assert sums["votes"] == 25
    assert sums["votes_training"] == sum(n for (kind, _), n in hits.items() if kind == "training")
    assert sums["hits_squared"] == sum(n**2 for n in hits.values())


def test_nearest_and_threshold_are_those_of_scipy(monkeypatch):
    monkeypatch.setattr("cardionets_core.evaluation.memorisation.BLOCK_ROWS", 7)
    rng = np.random.default_rng(6)
    query, case = (make_real(rng, n).reshape(n, -1) for n in (20, 30))
    distances = cdist(query.astype(float), case.astype(float))
    least, index = nearest(query, case)
    assert np.allclose(least, distances.min(axis=1)) and np.array_equal(index, distances.argmin(axis=1))
    among = cdist(case.astype(float), case.astype(float))
    np.fill_diagonal(among, np.inf)
    assert duplicate_threshold(case) == pytest.approx(np.percentile(among.min(axis=1), 1))
    assert nearest(case, case)[0].max() < 1e-4


def test_too_few_cases_are_no_pass():
    rng = np.random.default_rng(7)
    real = make_real(rng, 6)
    few = Latents(training=real, held_out=make_real(rng, 6), from_held_out=make_real(rng, 6),
                  from_training=make_real(rng, 6))  # fmt: skip
    verdict = judge_memorisation(memorisation_sums(few, seed=0))
    assert not verdict.conclusive and not verdict.passes
    none = Latents(training=real[:0], held_out=real[:0], from_held_out=real[:0], from_training=real[:0])
    sums = memorisation_sums(none, seed=0)
    assert not any(value.any() for value in sums.values())
    assert not judge_memorisation(sums).passes


def test_latents_that_do_not_belong_together_are_refused():
    real = make_real(np.random.default_rng(8), 4)
    with pytest.raises(ValueError, match="same order"):
        memorisation_sums(
            Latents(training=real, held_out=real, from_held_out=real[:3], from_training=real), seed=0
        )
    with pytest.raises(ValueError, match="sizes"):
        memorisation_sums(
            Latents(training=real[:, :2], held_out=real, from_held_out=real, from_training=real), seed=0
        )
