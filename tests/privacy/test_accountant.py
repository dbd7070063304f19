"""Epsilon: closed forms of the Gaussian mechanism, a convolution of our own, Opacus's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from opacus.accountants import RDPAccountant
from scipy import optimize, stats
from scipy.signal import fftconvolve

from cardionets_core.privacy.accountant import (
    Mechanism,
    Part,
    epsilon_of,
    noise_for,
    stays_within,
)


def gaussian_epsilon(noise: float, delta: float) -> float:
    """Exact, of the Gaussian mechanism: Balle and Wang 2018 (ICML), theorem 8."""

    def excess(epsilon: float) -> float:
        a, b = 1.0 / (2.0 * noise), epsilon * noise
        return float(stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b)) - delta

    return float(optimize.brentq(excess, 0.0, 700.0 * min(1.0, 1.0 / noise)))


def convolved_epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """Of the subsampled Gaussian, from its privacy loss on a grid, composed by convolution: independent code.

    The worse of adding and removing a patient, as Zhu et al. 2022 (AISTATS) state them.
    """
    width, reach = 2e-3, 60.0
    x = np.linspace(-40.0 * noise, 40.0 * noise + 1.0, 400_001)
    p = stats.norm.pdf(x, 0.0, noise)
    q = (1.0 - rate) * p + rate * stats.norm.pdf(x, 1.0, noise)
    worst = 0.0
    for top, bottom in ((q, p), (p, q)):
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = np.where(top > 0, np.log(top / bottom), 0.0)
        mass = top * (x[1] - x[0])
        place = np.clip(np.rint((loss + reach / 2) / width), 0, reach / width - 1).astype(int)
        one = np.bincount(place, weights=mass, minlength=int(reach / width))
        total, start = np.array([1.0]), 0.0
        for _ in range(steps):
            total, start = fftconvolve(total, one), start - reach / 2
        losses = start + width * np.arange(len(total))

        def excess(epsilon: float, total=total, losses=losses) -> float:
            over = losses > epsilon
            return float((total[over] * -np.expm1(epsilon - losses[over])).sum()) - delta

        worst = max(worst, optimize.brentq(excess, 0.0, 60.0))
    return worst


@pytest.mark.parametrize("noise", [0.7, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("steps", [1, 9])
def test_the_plain_gaussian_has_its_closed_form(noise: float, steps: int) -> None:
    exact = gaussian_epsilon(noise / math.sqrt(steps), 1e-5)
    mechanism = [Mechanism(noise_multiplier=noise, sample_rate=1.0, steps=steps)]
    numeric, renyi = (epsilon_of(mechanism, delta=1e-5, accountant=each) for each in ("prv", "rdp"))
    assert exact <= numeric <= exact + 0.011 + 0.001 * exact
    assert numeric <= renyi <= 1.6 * exact + 0.2


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.1, 10), (0.8, 0.3, 4), (1.5, 0.5, 20)])
def test_the_sampled_gaussian_agrees_with_a_convolution_of_our_own(noise, rate, steps):
    found = epsilon_of([Mechanism(noise_multiplier=noise, sample_rate=rate, steps=steps)], delta=1e-5)
    assert found == pytest.approx(convolved_epsilon(noise, rate, steps, 1e-5), abs=0.03)


def test_renyi_s_numbers_are_opacus_s():
    accountant = RDPAccountant()
    for _ in range(5):
        accountant.step(noise_multiplier=1.1, sample_rate=0.02)
    accountant.step(noise_multiplier=2.0, sample_rate=0.5)
    parts = [
        Mechanism(noise_multiplier=1.1, sample_rate=0.02, steps=2),
        Mechanism(noise_multiplier=2.0, sample_rate=0.5, steps=1),
        Mechanism(noise_multiplier=1.1, sample_rate=0.02, steps=3),
    ]
    assert epsilon_of(parts, delta=1e-6, accountant="rdp") == accountant.get_epsilon(delta=1e-6)


def test_what_is_known_of_a_published_example():
    # 60,000 records, batches of 256, noise 1.1, 60 epochs, delta 1e-5: about 2.6 (its authors: TF Privacy).
    mechanism = [Mechanism(noise_multiplier=1.1, sample_rate=256 / 60_000, steps=60 * 60_000 // 256)]
    assert 2.3 < epsilon_of(mechanism, delta=1e-5) < epsilon_of(mechanism, delta=1e-5, accountant="rdp") < 3.1


def test_limits():
    assert epsilon_of([], delta=1e-5) == 0.0
    assert epsilon_of([Mechanism(noise_multiplier=1.0, sample_rate=0.1, steps=0)], delta=1e-5) == 0.0
    assert math.isinf(epsilon_of([Mechanism(noise_multiplier=0.0, sample_rate=0.1, steps=1)], delta=1e-5))
    with pytest.raises(ValueError, match="delta"):
        epsilon_of([], delta=0.0)
    for wrong in ({"sample_rate": 0.0}, {"sample_rate": 1.1}, {"noise_multiplier": -1.0}, {"steps": -1}):
        with pytest.raises(ValueError):
            Mechanism(**{"noise_multiplier": 1.0, "sample_rate": 0.5, "steps": 1, **wrong})


def test_order_and_parts_do_not_matter_and_more_costs_more():
    a = Mechanism(noise_multiplier=1.0, sample_rate=0.1, steps=4)
    b = Mechanism(noise_multiplier=2.0, sample_rate=0.5, steps=1)
    halves = [Mechanism(noise_multiplier=1.0, sample_rate=0.1, steps=2)] * 2
    assert epsilon_of([a, b], delta=1e-5) == epsilon_of([b, *halves], delta=1e-5)
    assert epsilon_of([a], delta=1e-5) < epsilon_of([a, b], delta=1e-5) < epsilon_of([a, a, b], delta=1e-5)
    assert epsilon_of([a], delta=1e-7) > epsilon_of([a], delta=1e-5)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("epsilon", [0.3, 3.0, 12.0])
def test_the_noise_for_an_epsilon_spends_it_and_not_more(epsilon, accountant):
    plan = [Part(sample_rate=0.1, steps=30), Part(sample_rate=1.0, steps=1, scale=4.0)]
    noise = noise_for(plan, epsilon=epsilon, delta=1e-5, accountant=accountant)
    spent = epsilon_of([part.with_noise(noise) for part in plan], delta=1e-5, accountant=accountant)
    assert 0.997 * epsilon <= spent <= epsilon


def test_no_steps_need_no_noise_and_the_impossible_is_told():
    assert noise_for([Part(sample_rate=0.1, steps=0)], epsilon=1.0, delta=1e-5) == 0.0
    with pytest.raises(ValueError, match="no noise"):
        noise_for([Part(sample_rate=1.0, steps=10**9)], epsilon=1e-4, delta=1e-9)


def test_the_quick_answer_is_that_of_the_whole_reckoning():
    plan = [Part(sample_rate=0.2, steps=12)]
    for noise in (0.6, 1.0, 2.0):
        mechanisms = [part.with_noise(noise) for part in plan]
        exact = epsilon_of(mechanisms, delta=1e-5)
        for limit in (0.5 * exact, 0.999 * exact, exact, 1.001 * exact, 3.0 * exact):
            assert stays_within(mechanisms, limit, delta=1e-5) == (exact <= limit)


def test_a_very_large_epsilon_is_told_at_once():
    # The numeric accountant would convolve for minutes.
    found = epsilon_of([Mechanism(noise_multiplier=0.3, sample_rate=0.5, steps=1000)], delta=1e-5)
    assert 1000.0 < found < math.inf
