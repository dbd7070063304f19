"""What an update gives away of an ECG: the attack's own parts, and that protection ends it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cardionets_core.data.cohort import ECG_RATE_HZ
from cardionets_core.data.records import LEADS
from cardionets_core.privacy.accountant import Part, noise_for
from simulation.inversion import PEOPLE, attack, made_cohort, private_case, public_windows
from simulation.inversion import Case as SeenCase
from simulation.inversion_attack import Attack, Effort, Prior
from simulation.inversion_scores import agreement, null_scores, signal_to_noise_db
from simulation.inversion_victims import one_patient_site, seen, sent_modules, summed_securely, updated

SEED = 1
QUICK = Effort(starts=3, scouting=60, steps=120)
BRIEF = Effort(starts=1, scouting=40, steps=40)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    cohort = made_cohort(tmp_path_factory.mktemp("inversion") / "hospital", patients=PEOPLE)
    patients = np.unique(cohort.row_patient).tolist()
    return cohort, patients, public_windows(cohort, patients[10:])


@pytest.fixture(scope="module")
def plain(people):
    cohort, patients, _ = people
    return [
        updated(one_patient_site(cohort, patient), model_seed=SEED, seed=SEED + place)
        for place, patient in enumerate(patients[:3])
    ]


def case_of(name, updates, change=None) -> SeenCase:
    truth = np.concatenate([update.truth_NLT for update in updates])
    return SeenCase(name=name, seen=seen(updates, change), truth_NLT=truth)


def test_the_server_s_gradient_is_that_of_the_true_window(people, plain):
    """The attack's own model of the step has no misfit at the truth: masks, loss and rate are right."""
    _, _, others = people
    prior = Prior(others, rate_hz=ECG_RATE_HZ)
    attacker = Attack(sent_modules(SEED), seen(plain[:1]), prior=prior)
    true = torch.from_numpy(plain[0].truth_NLT).double()
    prior.windows = lambda code: true + 0.0 * code.sum()  # type: ignore[method-assign]
    code = torch.zeros(1, *prior.shape, dtype=torch.float64, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        right = float(attacker._misfit(code).detach())
        true[:, 4] *= -1.0
        wrong = float(attacker._misfit(code).detach())
    assert right < 1e-6 < 1e-3 < wrong


def test_windows_of_the_prior_are_twelve_leads_of_eight(people):
    _, _, others = people
    prior = Prior(others, rate_hz=ECG_RATE_HZ)
    code = torch.randn(2, *prior.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    windows = prior.windows(code).numpy()
    lead = {name: windows[:, place] - windows[:, place].mean(axis=1, keepdims=True)
            for place, name in enumerate(LEADS)}  # fmt: skip
    assert windows.shape == (2, 12, 750)
    assert np.allclose(lead["III"], lead["II"] - lead["I"])
    assert np.allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0.0)
    spectrum = np.abs(np.fft.rfft(windows[0, 1] * np.hanning(750)))
    assert spectrum[int(45 / ECG_RATE_HZ * 750) :].max() < 1e-2 * spectrum.max()
    # Codes of unit variance give leads of the size that the others have.
    assert 0.3 < windows.std() / others.numpy().std() < 3.0


def test_scores_at_their_limits():
    true = np.random.default_rng(0).normal(size=(12, 100))
    assert np.allclose(agreement(true, 3.0 * true + 1.0), 1.0)
    assert np.allclose(agreement(true, np.ones_like(true)), 0.0)
    assert signal_to_noise_db(true, 0.9 * true) == pytest.approx(20.0)
    assert signal_to_noise_db(true, np.zeros_like(true)) == pytest.approx(0.0)
    null = null_scores(true, np.stack([true, -true, true]))
    assert (null["best"], null["median"], null["people"]) == (pytest.approx(1.0), pytest.approx(1.0), 3.0)


def test_a_plain_update_gives_an_ecg_away_and_a_private_one_does_not(people, plain):
    cohort, patients, others = people
    noise = noise_for([Part(sample_rate=1.0, steps=1)], epsilon=8.0, delta=1e-5)
    private = private_case(cohort, patients[0], name="private", noise_multiplier=noise, seed=SEED)
    open_ = attack(case_of("plain", plain[:1]), others, effort=QUICK, seed=SEED)
    null = null_scores(plain[0].truth_NLT[0], others.numpy())
    assert open_["r"] > null["percentile_95"] and open_["r"] > 0.5
    assert open_["r"] > max(agreement(u.truth_NLT[0], open_["window"]).mean() for u in plain[1:]) + 0.3
    closed = attack(private, others, effort=BRIEF, seed=SEED)
    assert abs(closed["r"]) < 0.3
    assert closed["r_of_the_nearest_start"] < null["best"]


@pytest.mark.slow
def test_the_attack_finds_nothing_in_a_masked_vector(people, plain):
    _, _, others = people
    masked, _ = summed_securely(plain)
    found = attack(case_of("masked", plain[:1], masked[0]), others, effort=BRIEF, seed=SEED)
    assert abs(found["r"]) < 0.3


def test_a_masked_vector_tells_nothing_and_the_sum_less_the_others_all(plain):
    masked, total = summed_securely(plain)
    for vector, update in zip(masked, plain, strict=True):
        # Uniform over the range, whatever the update.
        assert abs(np.corrcoef(vector, update.vector)[0, 1]) < 0.02
        assert vector.std() > 1e3 * update.vector.std()
    left = total - plain[1].vector.astype(np.float64) - plain[2].vector
    assert np.allclose(left, plain[0].vector, atol=1e-8)


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_picture(tmp_path, run):
    ended = run("cardionets-sim", "privacy", "inversion", "--out", tmp_path, "--starts", 1, "--steps", 4,
                "--format", "json")  # fmt: skip
    content = json.loads(ended.stdout)
    assert ended.returncode == 0 and content == json.loads((tmp_path / "inversion.json").read_text())
    assert {"plain", "dp, epsilon 8", "masked vector", "sum of 10"} <= {
        row["case"] for row in content["cases"]
    }
    assert (tmp_path / "inversion.png").stat().st_size > 10_000
    assert run("cardionets-sim", "privacy", "inversion", "--out", tmp_path).returncode == 2
