"""Subgroup sums, and that no small cell can be had, neither directly nor by subtraction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.evaluation import (
    AGE_GROUPS,
    SEX_GROUPS,
    add_sums,
    age_groups,
    auroc,
    group_sums,
    r_squared,
    regression_sums,
    score_histograms,
    sex_groups,
)
from cardionets_core.evaluation.subgroups import people_by_cell, withheld_cells


def test_groups_of_age_and_sex():
    ages = np.array([18.0, 44.9, 45.0, 54.9, 55.0, 65.0, 74.99, 75.0, 101.0, np.nan])
    assert [AGE_GROUPS[i] for i in age_groups(ages)] == [
        "<45", "<45", "45-54", "45-54", "55-64", "65-74", "65-74", ">=75", ">=75", "unknown",
    ]  # fmt: skip
    sexes = np.array([0, 1, -1], dtype=np.int8)
    assert [SEX_GROUPS[i] for i in sex_groups(sexes)] == ["F", "M", "unknown"]


def test_large_cells_hold_the_sums_of_their_rows():
    rng = np.random.default_rng(0)
    target, predicted = rng.normal(size=(2, 120, 3))
    group = rng.integers(0, 3, size=120)
    found = group_sums(
        lambda rows: regression_sums(target[rows], predicted[rows]),
        group_R=group, groups=3, patient_R=np.arange(120), present_CRK=[np.isfinite(target)],
    )  # fmt: skip
    assert not found["withheld"].any()
    for index in range(3):
        own = regression_sums(target[group == index], predicted[group == index])
        assert np.allclose(r_squared(found)[index], r_squared(own), atol=1e-12)
    assert found["patients"][0].sum(axis=0).tolist() == [120, 120, 120]


def test_people_are_counted_not_rows():
    patient = np.array([1, 1, 1, 2, 3])
    present = np.array([[1, 0], [1, 0], [0, 0], [1, 1], [0, 1]], dtype=bool)
    found = people_by_cell(np.zeros(5, dtype=int), groups=2, patient_R=patient, present_RK=present)
    assert found.tolist() == [[2, 2], [0, 0]]


def test_a_single_small_cell_takes_its_smallest_neighbour_with_it():
    patients = np.array([[[50], [4], [30], [0]]])
    assert withheld_cells(patients, minimum=10)[:, 0].tolist() == [False, True, True, False]
    # Two small cells that together are no longer small hide each other.
    patients = np.array([[[50], [6], [7]]])
    assert withheld_cells(patients, minimum=10)[:, 0].tolist() == [False, True, True]
    # Nobody is left to hide behind.
    patients = np.array([[[0], [4], [0]]])
    assert withheld_cells(patients, minimum=10)[:, 0].tolist() == [True, True, True]


@given(
    counts=st.lists(st.lists(st.integers(0, 40), min_size=4, max_size=4), min_size=1, max_size=3),
    minimum=st.integers(1, 15),
)
@settings(max_examples=100, deadline=None)
def test_nothing_small_is_open_and_the_rest_of_the_total_is_not_small(counts, minimum):
    patients = np.array(counts)[:, :, None]
    withheld = withheld_cells(patients, minimum=minimum)[:, 0]
    for of_class in patients[:, :, 0]:
        shown = of_class[~withheld]
        assert not ((shown > 0) & (shown < minimum)).any()
        missing = of_class[withheld].sum()
        # Only a column that is small as a whole can miss fewer people, and then all of it is withheld.
        assert missing == 0 or missing >= minimum or withheld.all()
    if ((patients == 0) | (patients >= minimum)).all():
        assert not withheld.any()


def test_withheld_cells_are_zero_in_every_sum():
    target = np.arange(60.0)[:, None]
    group = np.repeat([0, 1, 2], [40, 17, 3])
    found = group_sums(
        lambda rows: regression_sums(target[rows], target[rows]),
        group_R=group, groups=3, patient_R=np.arange(60), present_CRK=[np.ones((60, 1), dtype=bool)],
    )  # fmt: skip
    assert found["withheld"][:, 0].tolist() == [0, 1, 1]
    for name, value in found.items():
        if name != "withheld":
            assert not np.moveaxis(value, -2, 0)[1:].any(), name
    assert found["n"][0, 0] == 40


def test_a_few_ill_among_many_healthy_are_protected():
    label = np.zeros((300, 2))
    label[:60, 0] = 1.0
    label[[0, 100, 200], 1] = 1.0
    label[210:230, 1] = 1.0
    group = np.arange(300) // 100
    logit = np.random.default_rng(1).normal(size=(300, 2)) + label
    found = group_sums(
        lambda rows: score_histograms(logit[rows], label[rows]),
        group_R=group, groups=3, patient_R=np.arange(300), present_CRK=[label == 1, label == 0],
    )  # fmt: skip
    assert found["withheld"][:, 0].tolist() == [0, 0, 0]
    assert found["positive"].shape == (3, 2, 2048)
    own = score_histograms(logit[group == 0], label[group == 0])
    assert auroc(found)[0, 0] == auroc(own)[0]
    # Second disease: one ill in each of two groups, so the third must go too.
    assert found["withheld"][:, 1].tolist() == [1, 1, 1] and not found["positive"][:, 1].any()


def test_cells_add_over_sites_and_count_who_withheld():
    def site(sizes):
        group = np.repeat(np.arange(3), sizes)
        target = np.ones((len(group), 1))
        return group_sums(
            lambda rows: regression_sums(target[rows], target[rows]),
            group_R=group, groups=3, patient_R=np.arange(len(group)), present_CRK=[np.isfinite(target)],
        )  # fmt: skip

    added = add_sums({"a": site([20, 30, 0]), "b": site([20, 30, 5]), "c": site([0, 0, 0])})
    assert added["withheld"][:, 0].tolist() == [1, 0, 1]
    assert added["n"][:, 0].tolist() == [20, 60, 0]


def test_no_rows():
    found = group_sums(
        lambda rows: regression_sums(np.zeros((0, 2))[rows], np.zeros((0, 2))[rows]),
        group_R=np.zeros(0, dtype=int), groups=6, patient_R=np.zeros(0, dtype=int),
        present_CRK=[np.zeros((0, 2), dtype=bool)],
    )  # fmt: skip
    assert found["n"].shape == (6, 2) and not found["n"].any() and not found["withheld"].any()
    assert pytest.approx(found["patients"]) == np.zeros((1, 6, 2))
