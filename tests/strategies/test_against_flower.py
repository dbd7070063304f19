"""Numbers agree with Flower's own implementations, over rounds, where both exist.

Differences, each by an option: FedAvgM is Nesterov's here unless told otherwise; Multi-Krum weighs by
samples only where the study says so; Bulyan selects one after the other as in its paper unless
``selection: once``; q-FedAvg weighs the sites by samples unless ``weights: equal``.
"""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from cardionets_core.errors import ConfigError, QuorumNotMetError
from strategies import make_strategy
from strategies.flower import FLOWER_STRATEGIES

SITES, SIZE, ROUNDS = 11, 3000, 4
PAIRS = [
    ("fedavg", {}, "FedAvg", {}),
    ("fedprox", {"mu": 0.1}, "FedProx", {"proximal_mu": 0.1}),
    (
        "fedavgm",
        {"momentum": 0.7, "rate": 0.5, "nesterov": False},
        "FedAvgM",
        {"server_momentum": 0.7, "server_learning_rate": 0.5},
    ),
    ("fedadam", {}, "FedAdam", {}),
    (
        "fedadam",
        {"rate": 0.02, "beta_1": 0.5, "beta_2": 0.7, "tau": 0.1},
        "FedAdam",
        {"eta": 0.02, "beta_1": 0.5, "beta_2": 0.7, "tau": 0.1},
    ),
    ("fedyogi", {}, "FedYogi", {}),
    ("fedadagrad", {}, "FedAdagrad", {}),
    ("median", {}, "FedMedian", {}),
    ("trimmed_mean", {"trim": 0.2}, "FedTrimmedAvg", {"beta": 0.2}),
    ("krum", {"attackers": 2}, "Krum", {"num_malicious_nodes": 2}),
    (
        "multi_krum",
        {"attackers": 2, "select": 4, "weights": "samples"},
        "MultiKrum",
        {"num_malicious_nodes": 2, "num_nodes_to_select": 4},
    ),
    ("bulyan", {"attackers": 2, "selection": "once"}, "Bulyan", {"num_malicious_nodes": 2}),
    (
        "qfedavg",
        {"local_rate": 0.1, "q": 0.5, "weights": "equal"},
        "QFedAvg",
        {"client_learning_rate": 0.1, "q": 0.5},
    ),
]


@pytest.fixture
def replies(bench, draw):
    """Sites around a common point, each with its samples and loss."""
    arrays = draw(SITES, SIZE, seed=1) * 0.3 + draw(1, SIZE, seed=2)
    values = [{"first_loss": 0.2 + 0.3 * k, "normaliser": 1.0} for k in range(SITES)]
    return bench.replies(arrays, np.arange(SITES) * 7 + 3, values=values)


class Content:
    """What Flower's strategies look at in a reply."""

    def __init__(self, content):
        self.content = content

    def has_error(self):
        return False


def flowers_rounds(name, options, replies, current):
    """Flower's strategy as it lives in its own loop: one object over all rounds."""
    made = getattr(flower, name)(fraction_train=0.0, **options)
    arrays = ArrayRecord({"w": Array(np.asarray(current, dtype=np.float32))})
    for number in range(1, ROUNDS + 1):
        made.configure_train(number, arrays, ConfigRecord(), None)
        contents = []
        for reply in replies:
            values = np.fromfile(reply.path, dtype="<f4")
            metrics = {"num-examples": reply.samples, "train_loss": reply.values["first_loss"]}
            record = {"arrays": ArrayRecord({"w": Array(values)}), "metrics": MetricRecord(metrics)}
            contents.append(Content(RecordDict(record)))
        arrays, _ = made.aggregate_train(number, contents)
        arrays = ArrayRecord({"w": Array(arrays["w"].numpy().astype(np.float32))})
    return arrays["w"].numpy()


@pytest.mark.parametrize("name, options, theirs, their_options", PAIRS)
def test_ours_agrees_with_flowers(bench, draw, replies, name, options, theirs, their_options):
    current = draw(1, SIZE, seed=3)[0]
    mine, _ = bench.rounds(name, options, replies, current=current, rounds=ROUNDS)
    other = flowers_rounds(theirs, their_options, replies, current)
    np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name, options, theirs, their_options", PAIRS)
def test_flowers_own_runs_in_the_place_of_ours(bench, draw, replies, theirs, their_options, name, options):
    """A new object each round, fed from files, is the object that lived through all rounds: to the bit."""
    current = draw(1, SIZE, seed=3)[0]
    mine, _ = bench.rounds(f"flower/{theirs.lower()}", their_options, replies, current=current, rounds=ROUNDS)
    np.testing.assert_array_equal(mine, flowers_rounds(theirs, their_options, replies, current))


def test_every_strategy_of_flower_that_averages_tensors_can_be_named():
    without = {"Strategy", "Result"}  # the contract, and what its loop gives
    without |= {name for name in flower.__all__ if name.startswith(("FedXgb", "DifferentialPrivacy"))}
    assert {each.flower_class for each in FLOWER_STRATEGIES} == set(flower.__all__) - without


def test_too_few_replies_for_flower_are_told(bench, draw):
    with pytest.raises(QuorumNotMetError, match="made nothing"):
        bench.once("flower/bulyan", {"num_malicious_nodes": 1}, draw(5, 10))


def test_one_that_remembers_anything_else_is_refused(bench, draw, monkeypatch):
    """A resumed study would forget it."""
    plain = flower.FedAvg.aggregate_train

    def counting(self, number, replies):
        self.seen = getattr(self, "seen", 0) + 1
        return plain(self, number, replies)

    monkeypatch.setattr(flower.FedAvg, "aggregate_train", counting)
    with pytest.raises(ConfigError, match="keeps seen from round to round"):
        bench.once("flower/fedavg", {}, draw(3, 10))


def test_adam_without_correction_is_the_papers(bench, draw):
    """Algorithm 2 by hand, where Flower's has a correction."""
    arrays, current = draw(4, 200, seed=4), draw(1, 200, seed=5)[0]
    mine, _ = bench.rounds(
        "fedadam", {"bias_correction": False}, bench.replies(arrays), current=current, rounds=3
    )
    x, m, v = current.astype(float), 0.0, 0.0
    for _ in range(3):
        d = arrays.astype(float).mean(0) - x
        m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d * d
        x = x + 0.1 * m / (np.sqrt(v) + 1e-3)
    np.testing.assert_allclose(mine, x, rtol=1e-5, atol=1e-6)
    assert make_strategy("fedadam", {}).options.flag("bias_correction")
