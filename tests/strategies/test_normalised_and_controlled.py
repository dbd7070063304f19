"""FedNova, SCAFFOLD and q-FedAvg at the coordinator: closed forms, and what they give on a quadratic."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.errors import ReplyRefusedError


def test_fednova_is_its_formula(bench, draw):
    arrays, current = draw(4, 300, seed=1), draw(1, 300, seed=2)[0]
    samples, lengths = np.array([3, 9, 1, 20]), np.array([1.0, 10.0, 4.0, 2.5])
    values = [{"normaliser": length} for length in lengths]
    got = bench.once("fednova", {}, arrays, samples, current=current, values=values)
    shares = samples / samples.sum()
    directions = (current.astype(float) - arrays) / lengths[:, None]
    expected = current - (shares @ lengths) * (shares @ directions)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_fednova_reaches_the_optimum_that_unequal_steps_pull_fedavg_away_from(bench):
    """Bowls around b_k, tau_k steps of a small rate: FedAvg rests at a mean weighted by steps."""
    bottoms, steps, rate = np.array([[0.0], [6.0]]), np.array([1, 30]), 0.004

    def rest(name):
        w = np.array([1.0])
        for _ in range(200):
            ends = [b + (1 - rate) ** t * (w - b) for b, t in zip(bottoms, steps, strict=True)]
            values = [{"normaliser": float(t)} for t in steps]
            w = bench.once(name, {}, np.array(ends), current=w, values=values).astype(float)
        return float(w[0])

    assert rest("fednova") == pytest.approx(3.0, abs=0.1)
    assert rest("fedavg") > 5.5


def test_a_normaliser_of_zero_is_refused(bench, draw):
    with pytest.raises(ReplyRefusedError):
        bench.once("fednova", {}, draw(2, 5), values=[{"normaliser": 1.0}, {}])


@pytest.mark.parametrize("weights", ["samples", "equal"])
@pytest.mark.parametrize("population", [0, 3, 12])
def test_scaffold_is_its_algorithm(bench, draw, weights, population):
    arrays, changes, current = draw(3, 200, seed=3), draw(3, 200, seed=4), draw(1, 200, seed=5)[0]
    samples = [5, 1, 10]
    replies = bench.replies(arrays, samples, extras={"control": changes})
    options = {"rate": 0.5, "weights": weights}
    got, kept = bench.rounds("scaffold", options, replies, current=current, rounds=2, population=population)
    shares = np.array(samples if weights == "samples" else [1, 1, 1], dtype=float)
    shares /= shares.sum()
    x, share = current.astype(float), 3 / max(population, 3)
    for _ in range(2):
        x = x + 0.5 * (shares @ arrays.astype(float) - x)
    np.testing.assert_allclose(got, x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        kept["control"], 2 * share * (shares @ changes.astype(float)), rtol=1e-5, atol=1e-6
    )


def test_a_high_loss_counts_for_more(bench):
    arrays, values = np.array([[1.0], [-1.0]]), [{"first_loss": 4.0}, {"first_loss": 1.0}]
    moves = [
        float(bench.once("qfedavg", {"q": q, "local_rate": 0.1}, arrays, values=values)[0])
        for q in (0.0, 0.5, 2.0)
    ]
    assert moves[0] == 0.0
    # Of two sites with F = 4 and 1 that go one step each way: (F1^q - F2^q) L / (h1 + h2), by hand.
    for q, move in zip((0.5, 2.0), moves[1:], strict=True):
        curvature = sum(q * loss ** (q - 1) * 100 + 10 * loss**q for loss in (4.0, 1.0))
        assert move == pytest.approx((4.0**q - 1.0) * 10 / curvature, rel=1e-5)
        assert move > 0


def test_a_loss_of_zero_is_a_number(bench, draw):
    values = [{"first_loss": 0.0}] * 3
    assert np.isfinite(bench.once("qfedavg", {"q": 0.5, "local_rate": 1.0}, draw(3, 50), values=values)).all()
