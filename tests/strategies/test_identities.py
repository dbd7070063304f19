"""What holds for every strategy: one site, equal replies, any order of sites, tiles, options, documents."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.errors import ConfigError
from cardionets_core.training.local_rule import SITE_OPTIONS
from strategies import STRATEGIES, make_strategy

NEEDED = {"qfedavg": {"local_rate": 0.1}, "norm_bound": {"bound": 1e6}}
NEEDED["flower/qfedavg"] = {"client_learning_rate": 0.1}
NO_ATTACKERS = {name: {"attackers": 0} for name in ("krum", "multi_krum", "bulyan")}
OURS = sorted(name for name in STRATEGIES if not name.startswith("flower/"))
# The next model is a mean or a choice of replies: no server step of its own, no site's correction.
MEANS = sorted(set(OURS) - {"fedavgm", "fedadam", "fedyogi", "fedadagrad", "qfedavg"})
VALUES = {"normaliser": 3.0, "first_loss": 1.5, "steps": 3.0}


def options_of(name):
    return {**NEEDED.get(name, {}), **NO_ATTACKERS.get(name, {})}


def told(bench, arrays, samples=None, values=None):
    extras = {"control": np.zeros_like(arrays)}
    return bench.replies(arrays, samples, values=values or [VALUES] * len(arrays), extras=extras)


@pytest.mark.parametrize("name", MEANS)
def test_one_site_gets_its_bytes_back(bench, draw, name):
    (mine,) = draw(1, 1000, seed=3)
    got, _ = bench.rounds(name, options_of(name), told(bench, [mine], [7]), current=np.ones(1000))
    assert got.tobytes() == mine.tobytes()


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("sites", [2, 3, 7, 10])
def test_equal_replies_are_the_reply(bench, draw, name, sites):
    mine = np.repeat(draw(1, 500, seed=4), sites, axis=0)
    samples = np.random.default_rng(1).integers(1, 10_000, sites)
    got, _ = bench.rounds(name, options_of(name), told(bench, mine, samples), current=np.ones(500))
    assert got.tobytes() == mine[0].tobytes()


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_nothing_moves_where_nobody_moved(bench, draw, name):
    (mine,) = draw(1, 300, seed=5)
    replies = told(bench, np.repeat([mine], 7, axis=0), range(1, 8))
    # Flower's mean is in float32. An adaptive step makes its last bit 100 (rate / tau) times larger.
    flowers = name.startswith("flower/")
    got, _ = bench.rounds(name, options_of(name), replies, current=mine, rounds=1 if flowers else 2)
    np.testing.assert_allclose(got, mine, rtol=1e-6, atol=1e-4 if flowers else 0)


@pytest.mark.parametrize("name", OURS)
def test_any_order_of_sites_gives_the_same(bench, draw, name):
    """Named otherwise, the same replies give the same model: means to their rounding, choices to the bit."""
    arrays, samples = draw(9, 400, seed=6), np.arange(1, 10) * 13
    values = [{**VALUES, "normaliser": 1.0 + k, "first_loss": 0.5 + k} for k in range(9)]
    order = np.random.default_rng(2).permutation(9)
    current = draw(1, 400, seed=7)[0]
    one, _ = bench.rounds(name, options_of(name), told(bench, arrays, samples, values), current=current)
    replies = told(bench, arrays[order], samples[order], [values[k] for k in order])
    two, _ = bench.rounds(name, options_of(name), replies, current=current)
    if name in ("median", "trimmed_mean", "krum", "bulyan"):
        assert one.tobytes() == two.tobytes()
    np.testing.assert_allclose(one, two, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("name", OURS)
def test_a_module_larger_than_a_tile_is_walked_whole(bench, draw, name, monkeypatch):
    """The same values in one tile and in many; sums over a whole module may differ in their last bit."""
    arrays, samples = draw(7, 5000, seed=8), np.arange(3, 10)
    options, current = options_of(name), draw(1, 5000, seed=9)[0]
    whole, kept = bench.rounds(name, options, told(bench, arrays, samples), current=current, rounds=2)
    monkeypatch.setattr("strategies.strategy.tiles.__kwdefaults__", {"tile_values": 333})
    monkeypatch.setattr("strategies.strategy.stacks.__kwdefaults__", {"most_values": 1800})
    tiled, also = bench.rounds(name, options, told(bench, arrays, samples), current=current, rounds=2)
    np.testing.assert_allclose(whole, tiled, rtol=1e-6)
    assert kept.keys() == also.keys()
    for state, value in kept.items():
        np.testing.assert_allclose(value, also[state], rtol=1e-6)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_options_are_checked_strictly(name):
    with pytest.raises(ConfigError, match="no option strength") as refused:
        make_strategy(name, {**options_of(name), "strength": 1})
    assert "it takes" in refused.value.remedy
    for needed in NEEDED.get(name, {}):
        with pytest.raises(ConfigError, match=needed):
            make_strategy(name, {})


WRONG = [
    ("fedprox", {"mu": -1}),
    ("fedprox", {"mu": True}),
    ("fedadam", {"beta_1": 1}),
    ("fedadam", {"beta_2": 1.5}),
    ("fedadam", {"tau": 0}),
    ("fedadam", {"rate": "fast"}),
    ("fedadam", {"bias_correction": 1}),
    ("fedyogi", {"rate": float("inf")}),
    ("fedadagrad", {"rate": float("nan")}),
    ("scaffold", {"weights": "patients"}),
    ("scaffold", {"rate": 0}),
    ("fednova", {"mu": -0.1}),
    ("ditto", {"lambda": "near"}),
    ("qfedavg", {"local_rate": 0}),
    ("qfedavg", {"local_rate": 0.1, "q": -1}),
    ("norm_bound", {"bound": 0}),
    ("trimmed_mean", {"trim": 0.5}),
    ("krum", {"attackers": -1}),
    ("krum", {"attackers": 1.5}),
    ("multi_krum", {"select": True}),
    ("bulyan", {"selection": "twice"}),
]


@pytest.mark.parametrize("name, options", WRONG)
def test_a_wrong_option_is_named_with_what_it_may_be(name, options):
    with pytest.raises(ConfigError, match=f"of the strategy {name} is") as refused:
        make_strategy(name, options)
    assert refused.value.remedy.startswith("it is ")
    assert any(key in refused.value.where for key in options)


def test_what_the_sites_read_is_what_the_coordinator_checks():
    for name, options in SITE_OPTIONS.items():
        defaults = make_strategy(name, {}).defaults
        assert {key: defaults[key] for key in options} == dict(options)
