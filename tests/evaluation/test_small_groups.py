"""Columns and classes of few people are taken out, so that no sum tells of them, nor by subtraction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.evaluation.small_groups import (
    without_small_classes,
    without_small_columns,
    without_small_subtypes,
)
from cardionets_core.evaluation.subgroups import people_by_cell

NAN = np.nan


def labels(*columns):
    return np.array(columns, dtype=float).T


def test_a_disease_of_few_ill_or_few_well_is_not_known_and_others_stay():
    few_ill, few_well = [1] * 4 + [0] * 16, [1] * 16 + [0] * 4
    enough, nobody_ill, unknown = [1] * 5 + [0] * 15, [0] * 20, [NAN] * 20
    given_RK = labels(few_ill, few_well, enough, nobody_ill, unknown)
    found = without_small_classes(given_RK, patient_R=np.arange(20), minimum=5)
    assert np.isnan(found[:, [0, 1, 4]]).all()
    np.testing.assert_array_equal(found[:, [2, 3]], given_RK[:, [2, 3]])
    np.testing.assert_array_equal(
        without_small_classes(given_RK, patient_R=np.arange(20), minimum=1), given_RK
    )


def test_people_are_counted_and_not_their_records():
    # Five ECGs of one ill person, and thirty well people.
    label = labels([1] * 5 + [0] * 30)
    patient = np.array([0] * 5 + list(range(1, 31)))
    assert np.isnan(without_small_classes(label, patient_R=patient, minimum=5)).all()


def test_who_is_known_in_one_class_alone_is_a_group_too():
    # Six people are ill at one time and well at another; one more is always well.
    patient = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6])
    label = labels([1] * 6 + [0] * 7)
    assert np.isnan(without_small_classes(label, patient_R=patient, minimum=5)).all()


def test_a_column_known_of_few_is_left_out():
    value = np.full((8, 3), 1.5)
    value[3:, 0] = NAN
    value[:, 1] = NAN
    found = without_small_columns(value, patient_R=np.arange(8), minimum=5)
    assert np.isnan(found[:, :2]).all() and (found[:, 2] == 1.5).all()


def test_rows_of_a_rare_subtype_are_unknown_and_the_others_keep_theirs():
    index = np.array([0] * 6 + [1] * 2 + [2] * 5)
    one_hot = np.eye(3)[index]
    found = without_small_subtypes(one_hot, patient_R=np.arange(13), minimum=5)
    assert np.isnan(found[index == 1]).all()
    np.testing.assert_array_equal(found[index != 1], one_hot[index != 1])


def test_nobody_at_all_is_legal():
    for take_out in (without_small_classes, without_small_columns, without_small_subtypes):
        found = take_out(np.zeros((0, 3)), patient_R=np.zeros(0, dtype=np.int64), minimum=5)
        assert found.shape == (0, 3)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@pytest.mark.parametrize("rows", [0, 7, 40])
def test_what_is_left_stands_on_enough_people_in_each_class(rows, seed, minimum):
    rng = np.random.default_rng(seed)
    label = rng.choice([0.0, 1.0, NAN], p=[0.6, 0.2, 0.2], size=(rows, 4))
    patient = rng.integers(0, max(1, rows // 2), size=rows)
    found = without_small_classes(label, patient_R=patient, minimum=minimum)
    same = (found == label) | (np.isnan(found) & np.isnan(label))
    for column in range(4):
        assert same[:, column].all() or np.isnan(found[:, column]).all()
    for value in (0.0, 1.0):
        people = people_by_cell(
            np.zeros(rows, dtype=np.int64), groups=1, patient_R=patient, present_RK=found == value
        )[0]
        assert ((people == 0) | (people >= minimum)).all()
