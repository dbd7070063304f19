"""The curve of what privacy costs: its studies may be private, and one point from hospitals to metric."""

from __future__ import annotations

import json

import pytest

from cardionets_core.tasks import make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.private_plan import check_private, epsilon_after, noise_of, phase_costs
from simulation.pictures.utility import picture_utility
from simulation.privacy_tables import utility_table
from simulation.utility import Curve, ecg_hospitals, made_beginning, made_hospitals, point, trained
from simulation.utility_studies import LARGE_HEAD, SMALL_HEAD, WHOLE, Recipe, private_study

GIVEN = {"ecg_encoder": "a" * 64, "screening_prior": "b" * 64}
QUICK = Recipe(batch_size=16, rounds=2, local_steps=2, lr=1.0, clip_norm=0.5)


@pytest.mark.parametrize(("recipe", "patients"), [(SMALL_HEAD, 85), (LARGE_HEAD, 1200), (WHOLE, 85)])
def test_every_study_may_be_private_and_keeps_its_epsilon(recipe, patients):
    for epsilon in (8.0, 1.0):
        study = private_study(recipe, epsilon=epsilon, seed=1, given=GIVEN)
        tasks = [make_task(phase.task, phase.options) for phase in study.phases]
        check_private(study, tasks)
        costs = phase_costs(study, tasks, patients=[patients] * len(tasks))
        noise = noise_of(study, costs)
        assert 0.95 * epsilon < epsilon_after(study, costs, noise_multiplier=noise) <= epsilon


def test_studies_of_one_curve_differ_in_their_privacy_alone():
    plain, private = (private_study(WHOLE, epsilon=e, seed=3, given=GIVEN) for e in (None, 1.0))
    assert plain.phases == private.phases and plain.seed == private.seed
    assert (plain.privacy.mechanism, private.privacy.mechanism) == ("none", "dp_sgd")
    assert set(plain.initial) == {"screening_prior"}
    assert private_study(SMALL_HEAD, epsilon=None, seed=3, given=GIVEN).initial == GIVEN


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("utility")
    initial, given = made_beginning(folder, cores=1, patients=40, rounds=1)
    hospitals = made_hospitals(ecg_hospitals("small", 60, count=2), folder / "hospitals", cores=1)
    return Curve(name="quick", hospitals=hospitals, recipe=QUICK), folder, initial, given


@pytest.mark.slow
def test_a_point_is_measured_on_all_held_out_patients_and_repeats(small):
    curve, folder, initial, given = small

    def of(epsilon: float | None) -> dict:
        return point(curve, epsilon, seeds=[7, 8], given=given, initial=initial, work=folder / "work")

    private, again, plain = of(1.0), of(1.0), of(None)
    assert private["by_seed"] == again["by_seed"] != plain["by_seed"]
    assert private["by_seed"][0] != private["by_seed"][1]
    needs = frozenset({"ecg", "labels"})
    held_out = [(c, c.rows(needs, "test", shape_of("nano"))) for c in curve.hospitals.cohorts]
    tested = sum(c.patients(rows) for c, rows in held_out)
    assert plain["test_patients"] == tested
    assert plain["lowest"] <= plain["mean"] <= plain["highest"] <= 1.0
    content = {"points": [private, plain], "metric": "auroc_mean", "delta": 1e-5}
    assert picture_utility(content, folder / "utility.png") == "utility.png"
    assert len(utility_table(content)) == 4
    json.dumps(content, allow_nan=False)


@pytest.mark.slow
def test_a_study_begins_anew_although_the_sites_have_answered_it(small):
    curve, folder, initial, given = small
    study = private_study(QUICK, epsilon=2.0, seed=1, given=given)
    ends = [
        trained(study, curve.hospitals, folder=folder / name, initial=initial).phase_end(0, 2).digests
        for name in ("a", "b")
    ]
    assert ends[0] == ends[1]
