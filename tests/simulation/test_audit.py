"""The audit: bounds against closed forms; broken mechanisms are found out and the sound one is not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import norm

from cardionets_core.privacy.accountant import Mechanism, epsilon_of
from cardionets_core.privacy.noise import public_key_of
from simulation.audit import audited, claims
from simulation.audit_bounds import bounds_of, epsilon_of_mu, upper_rate
from simulation.audit_canary import CLIP, Claim, Variant, audit_site, log_odds, observed, variants

TRIALS = 120
BROKEN = [variant.name for variant in variants(claims(2.0)["everybody"])][1:]


def claim_of(epsilon: float, sampling: str = "everybody") -> Claim:
    return claims(epsilon)[sampling]


def variant_of(claim: Claim, name: str) -> Variant:
    return next(variant for variant in variants(claim) if variant.name == name)


def test_epsilon_of_mu_is_that_of_the_gaussian_mechanism():
    """Balle and Wang 2018: a check from the definition, and against the accountant of the project."""
    for mu in (0.3, 1.0, 3.0):
        epsilon = epsilon_of_mu(mu, delta=1e-5)
        left = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        assert left == pytest.approx(1e-5, rel=1e-6)
        one = Mechanism(noise_multiplier=2.0 / mu, sample_rate=1.0, steps=4)
        assert epsilon <= epsilon_of([one], delta=1e-5) <= 1.02 * epsilon + 0.02
    assert epsilon_of_mu(0.0, delta=1e-5) == 0.0


def test_an_upper_rate_is_the_exact_binomial_one():
    # No event in n: 1 - (1 - confidence) / 2 = 1 - (1 - p)^n.
    assert upper_rate(0, 100) == pytest.approx(1.0 - 0.025 ** (1 / 100))
    assert upper_rate(100, 100) == 1.0 and upper_rate(50, 100) > 0.5


def test_bounds_hold_for_known_gaussians_and_come_near_with_many_trials():
    rng, mu = np.random.default_rng(0), 1.5
    true = epsilon_of_mu(mu, delta=1e-5)
    over = 0
    for _ in range(200):
        found = bounds_of(rng.normal(size=300), rng.normal(mu, 1.0, size=300), delta=1e-5)
        over += found.gaussian > true or found.clopper_pearson > true
    assert over <= 20  # 5 % are allowed; 200 draws of them pass 20 with a chance below 2e-3
    many = bounds_of(rng.normal(size=40_000), rng.normal(mu, 1.0, size=40_000), delta=1e-5)
    assert 0.9 * true < many.gaussian < true and 0.3 * true < many.clopper_pearson < true


def test_equal_statistics_bound_nothing():
    same = np.random.default_rng(1).normal(size=500)
    found = bounds_of(same, same, delta=1e-5)
    assert found.clopper_pearson == 0.0 and found.gaussian < 0.3
    assert bounds_of(np.zeros(50), np.zeros(50), delta=1e-5).gaussian == 0.0


def test_the_adversary_sees_one_clip_of_a_canary_and_five_of_one_clipped_by_recording():
    claim = claim_of(2.0)
    quiet = Variant(name="quiet", noise_times=0.0)

    def push(**changes) -> np.ndarray:
        site = audit_site(claim, present=changes.pop("present", True), **changes)
        return observed(claim, quiet, site, key=public_key_of(1))

    assert np.allclose(push(), 1.0, atol=1e-6)
    assert np.allclose(push(present=False), 0.0)
    assert np.allclose(push(by_recording=True), 5.0 * CLIP, atol=1e-5)


def test_log_odds_are_those_of_a_sampled_gaussian():
    claim = Claim(patients=4, batch_size=1, steps=1, noise_multiplier=0.7)
    for push in (-0.4, 0.0, 1.3):
        out = norm.pdf(push, 0.0, 0.7)
        mixed = 0.75 * out + 0.25 * norm.pdf(push, 1.0, 0.7)
        assert log_odds(np.array([push]), claim) == pytest.approx(math.log(mixed / out))


def test_the_sound_mechanism_stays_below_its_claim_and_the_bound_is_no_trifle():
    claim = claim_of(8.0)
    row, _ = audited(claim, variant_of(claim, "as it is"), sampling="everybody", trials=TRIALS, seed=0)
    assert not row["found_out"] and row["claimed_epsilon"] == pytest.approx(8.0, rel=0.01)
    assert 0.3 < row["share_of_claim"] < 1.0


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_mechanism_is_found_out(name):
    claim = claim_of(2.0)
    row, _ = audited(claim, variant_of(claim, name), sampling="everybody", trials=TRIALS, seed=0)
    assert row["found_out"], row


@pytest.mark.slow
def test_the_command_clears_the_sound_mechanism_under_sampling_too(tmp_path, run):
    ended = run("cardionets-sim", "privacy", "audit", "--out", tmp_path, "--trials", 400, "--format", "json")
    content = json.loads(ended.stdout)
    assert ended.returncode == 0 and (tmp_path / "audit.png").stat().st_size > 10_000
    sound = [row for row in content["mechanisms"] if row["mechanism"] == "as it is"]
    assert len(sound) == 2 and not any(row["found_out"] for row in sound)
    assert all(row["found_out"] for row in content["mechanisms"]
               if row["sampling"] == "everybody" and row not in sound)  # fmt: skip
    assert run("cardionets-sim", "privacy", "audit", "--out", tmp_path).returncode == 2
