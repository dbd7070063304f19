"""Robust strategies against naive references, at any shape, and against an attacker."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import QuorumNotMetError, StorageFailedError
from strategies import make_strategy
from strategies.distances import squared_distances
from strategies.sorting import network, sort_sites

SHAPES = {"sites": st.integers(1, 16), "size": st.integers(1, 700), "seed": st.integers(0, 9)}


def arrays_of(sites, size, seed):
    """Some values are equal between sites, and some are zeros of either sign."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(sites, size)).astype("f4")
    found[rng.random((sites, size)) < 0.1] = rng.choice([0.0, -0.0, 1.0])
    return found


@pytest.mark.parametrize("rows", range(1, 34))
def test_the_network_sorts(rows):
    values = np.random.default_rng(rows).integers(0, 9, (rows, 300)).astype("f4")
    np.testing.assert_array_equal(sort_sites(values.copy()), np.sort(values, axis=0))
    assert all(0 <= low < high < rows for low, high in network(rows))


def test_the_network_sorts_every_pattern_of_zeros_and_ones():
    """Knuth's principle: then it sorts everything."""
    for rows in range(1, 13):
        patterns = (np.arange(2**rows) >> np.arange(rows)[:, None] & 1).astype("f4")
        np.testing.assert_array_equal(sort_sites(patterns.copy()), np.sort(patterns, axis=0))


@given(**SHAPES)
@settings(max_examples=40, deadline=None)
def test_the_median_is_numpys(make_bench, sites, size, seed):
    values = arrays_of(sites, size, seed)
    got = make_bench().once("median", {}, values)
    expected = np.median(values.astype(np.float64), axis=0)
    np.testing.assert_array_equal(got, expected.astype("f4"))


@given(trim=st.floats(0, 0.49), **SHAPES)
@settings(max_examples=40, deadline=None)
def test_the_trimmed_mean_is_the_mean_of_what_is_left(make_bench, sites, size, seed, trim):
    values = arrays_of(sites, size, seed)
    got = make_bench().once("trimmed_mean", {"trim": trim}, values)
    cut = int(trim * sites)
    left = np.sort(values.astype(np.float64), axis=0)[cut : sites - cut]
    np.testing.assert_allclose(got, left.mean(axis=0), rtol=1e-6, atol=1e-12)


def test_with_nothing_trimmed_it_is_the_plain_mean(bench, draw):
    values = draw(6, 100)
    np.testing.assert_allclose(
        bench.once("trimmed_mean", {"trim": 0.0}, values, [9, 1, 1, 1, 1, 1]), values.mean(0), atol=1e-6
    )


def naive_scores(values, attackers):
    """Krum's score as its paper has it, by all pairs."""
    scores = []
    for i, mine in enumerate(values):
        others = sorted(
            float(((mine.astype(float) - other) ** 2).sum()) for j, other in enumerate(values) if j != i
        )
        scores.append(sum(others[: max(1, len(values) - attackers - 2)]))
    return scores


@given(size=st.integers(1, 3000), sites=st.integers(1, 12), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_distances_are_those_of_all_pairs(make_bench, size, sites, seed):
    values = np.random.default_rng(seed).normal(size=(sites, size)).astype("f4") + np.float32(100.0)
    got = squared_distances(make_bench().replies(values))
    wide = values.astype(np.float64)
    np.testing.assert_allclose(got, ((wide[:, None] - wide[None]) ** 2).sum(-1), rtol=1e-9, atol=1e-9)


@given(attackers=st.integers(0, 3), more=st.integers(0, 5), size=st.integers(1, 300), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_krum_and_multi_krum_choose_as_the_naive_ones(make_bench, attackers, more, size, seed):
    sites = 2 * attackers + 3 + more
    values = np.random.default_rng(seed).normal(size=(sites, size)).astype("f4")
    bench, order = make_bench(), np.argsort(naive_scores(values, attackers), kind="stable")
    got = bench.once("krum", {"attackers": attackers}, values)
    assert got.tobytes() == values[order[0]].tobytes()
    mean = values[order[: sites - attackers - 2]].astype(float).mean(0)
    np.testing.assert_allclose(
        bench.once("multi_krum", {"attackers": attackers}, values), mean, rtol=1e-6, atol=1e-7
    )


def naive_bulyan(values, attackers):
    left, chosen = list(range(len(values))), []
    while len(chosen) < len(values) - 2 * attackers:
        scores = naive_scores(values[left], attackers)
        chosen.append(left.pop(int(np.argmin(scores))))
    selected = values[sorted(chosen)].astype(np.float64)
    width = len(chosen) - 2 * attackers
    centre = np.median(selected, axis=0)
    nearest = np.argsort(np.abs(selected - centre), axis=0, kind="stable")[:width]
    return np.take_along_axis(selected, nearest, axis=0).mean(axis=0)


@given(attackers=st.integers(0, 2), more=st.integers(0, 3), size=st.integers(1, 300), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_bulyan_is_the_naive_one(make_bench, attackers, more, size, seed):
    values = np.random.default_rng(seed).normal(size=(4 * attackers + 3 + more, size)).astype("f4")
    got = make_bench().once("bulyan", {"attackers": attackers}, values)
    np.testing.assert_allclose(got, naive_bulyan(values, attackers), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, sites", [("krum", 4), ("multi_krum", 4), ("bulyan", 6)])
def test_too_few_replies_are_refused(bench, draw, name, sites):
    assert make_strategy(name, {}).fewest == sites + 1
    with pytest.raises(QuorumNotMetError, match="the strategy"):
        bench.once(name, {}, draw(sites, 10))


ATTACKS = {
    "a huge change": lambda honest, rng: np.full(honest.shape[1], 1e6, dtype="f4"),
    "the other way": lambda honest, rng: -20 * honest.mean(0),
    "noise": lambda honest, rng: rng.normal(size=honest.shape[1]).astype("f4") * 1000,
}
ROBUST = [
    ("median", {}),
    ("trimmed_mean", {"trim": 0.2}),
    ("krum", {}),
    ("multi_krum", {}),
    ("bulyan", {}),
    ("norm_bound", {"bound": 40.0, "weights": "equal"}),
]


@pytest.mark.parametrize("attack", sorted(ATTACKS))
@pytest.mark.parametrize("name, options", ROBUST)
def test_an_attacker_that_ruins_the_mean_does_not_ruin_it(bench, draw, name, options, attack):
    """Eight honest sites around a point; one sends anything and claims all samples."""
    honest = draw(8, 1000, seed=1) * 0.1 + 1.0
    evil = ATTACKS[attack](honest, np.random.default_rng(2))
    values, samples = np.vstack([honest[:3], evil, honest[3:]]).astype("f4"), [10] * 9
    samples[3] = 10**6
    true = honest.astype(float).mean(0)

    def error(got):
        return float(np.sqrt(np.mean((got - true) ** 2)))

    assert error(bench.once("fedavg", {}, values, samples)) > 10
    assert error(bench.once(name, options, values, samples)) < 0.5


@given(sites=st.integers(1, 7), size=st.integers(1, 200), seed=st.integers(0, 9), bound=st.floats(0.1, 50))
@settings(max_examples=40, deadline=None)
def test_nobody_moves_the_model_by_more_than_the_bound(make_bench, sites, size, seed, bound):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(sites, size)) * 10).astype("f4")
    current, samples = rng.normal(size=size).astype("f4"), rng.integers(1, 99, sites)
    got = make_bench().once("norm_bound", {"bound": bound}, values, samples, current=current)
    changes = values.astype(float) - current
    norms = np.linalg.norm(changes, axis=1, keepdims=True)
    clipped = changes * np.minimum(1.0, bound / np.maximum(norms, 1e-300))
    expected = current + (samples[:, None] * clipped).sum(0) / samples.sum()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(got.astype(float) - current) <= bound * (1 + 1e-4) + 1e-4
    loose = make_bench().once("norm_bound", {"bound": 1e9}, values, samples, current=current)
    assert loose.tobytes() == make_bench().once("fedavg", {}, values, samples).tobytes()


def test_a_reply_that_the_disk_lost_a_part_of_is_told(bench, draw):
    replies = bench.replies(draw(3, 100))
    replies[1].path.write_bytes(replies[1].path.read_bytes()[:-8])
    with pytest.raises(StorageFailedError, match="shorter"):
        bench.rounds("median", {}, replies, current=np.zeros(100))
