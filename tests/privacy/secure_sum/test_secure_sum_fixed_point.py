"""Values survive the ring to half a step, and what does not fit is refused by its place."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardionets_core.errors import FixedPointRangeError, UsageError
from cardionets_core.privacy.secure_sum import FixedPoint
from cardionets_core.privacy.secure_sum.fixed_point import TILE_VALUES

FORMS = st.builds(
    FixedPoint,
    bits=st.sampled_from([32, 64]),
    fraction_bits=st.integers(-20, 60),
    parties=st.integers(1, 600),
)


@given(form=FORMS, part=st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_each_value_is_the_nearest_step(form, part):
    values = np.array(part) * form.largest
    back = form.decode(form.encode(values, name="update"))
    for value, found in zip(values, back, strict=True):
        assert abs(Fraction(float(value)) - Fraction(float(found))) <= Fraction(form.error)


@pytest.mark.parametrize("bits", [32, 64])
def test_halves_go_to_the_even_step(bits):
    form = FixedPoint(bits, 1, 3)
    values = np.array([0.25, 0.75, 1.25, -0.25, -0.75, 0.5, -0.5, 0.26])
    codes = form.encode(values, name="x").view(np.int32 if bits == 32 else np.int64)
    assert codes.tolist() == [0, 2, 2, 0, -2, 1, -1, 1]


@given(form=FORMS)
def test_the_largest_values_of_all_parties_do_not_wrap(form):
    for sign in (1, -1):
        code = form.encode(np.array([sign * form.largest]), name="x")
        total = (code * np.array(form.parties, dtype=form.dtype)).astype(form.dtype)
        exact = sign * form.parties * form.largest_code
        assert int(total.view(np.int32 if form.bits == 32 else np.int64)[0]) == exact
        assert abs(exact) < 1 << (form.bits - 1)


@given(form=FORMS)
def test_the_range_is_used(form):
    """One party more, or one in a thousand more, would not fit."""
    assert form.largest_code * form.parties * 1.001 + form.parties + 1 > (1 << (form.bits - 1)) - 1
    with pytest.raises(FixedPointRangeError):
        form.encode(np.array([np.nextafter(form.largest, np.inf) + form.step]), name="x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30, 1e308])
@pytest.mark.parametrize("bits", [32, 64])
def test_what_does_not_fit_is_named_by_its_place_and_not_by_its_value(bits, bad):
    form = FixedPoint(bits, 20, 8)
    values = np.zeros((3, TILE_VALUES))
    values[2, 17] = bad
    with pytest.raises(FixedPointRangeError) as caught:
        form.encode(values, name="ecg_encoder/patch.weight")
    assert "ecg_encoder/patch.weight at [2, 17]" in caught.value.what
    assert "e+30" not in str(caught.value) and "e+308" not in str(caught.value)
    assert caught.value.remedy
    values[2, 17] = 0.0
    form.encode(values, name="x")


def test_float32_and_other_shapes():
    form = FixedPoint(32, 16, 4)
    values = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    assert form.encode(values, name="x").shape == values.shape
    turned = form.decode(form.encode(values.T, name="x"), dtype=np.float32)
    assert turned.dtype == np.float32
    assert np.abs(turned - values.T).max() <= form.error
    assert form.decode(form.encode(np.float64(1.5).reshape(()), name="x")) == 1.5
    assert form.encode(np.zeros(0), name="x").size == 0


@given(
    bits=st.sampled_from([32, 64]),
    largest=st.floats(1e-30, 1e30),
    parties=st.integers(1, 600),
)
def test_the_finest_step_is_the_finest(bits, largest, parties):
    form = FixedPoint.finest(bits, largest=largest, parties=parties)
    assert form.largest >= largest
    assert FixedPoint(bits, form.fraction_bits + 1, parties).largest < largest
    form.encode(np.array([largest, -largest]), name="x")


def test_there_is_no_such_fixed_point():
    for bits, fraction_bits, parties in ((16, 4, 2), (32, 5000, 2), (32, 4, 0), (64, 4, 1 << 20)):
        with pytest.raises(UsageError):
            FixedPoint(bits, fraction_bits, parties)
    for largest in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(UsageError):
            FixedPoint.finest(32, largest=largest, parties=2)
    form = FixedPoint(32, 4, 2)
    with pytest.raises(UsageError):
        form.encode(np.ones(3, dtype=np.int64), name="x")
    with pytest.raises(UsageError):
        form.decode(np.ones(3, dtype=np.uint64))


def test_little_memory_beyond_in_and_out():
    values = np.zeros(2_000_000, dtype=np.float32)
    form = FixedPoint(32, 16, 4)
    tracemalloc.start()
    try:
        codes = form.encode(values, name="x")
        encoding = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        form.decode(codes, dtype=np.float32)
        decoding = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert encoding - codes.nbytes < 3_000_000
    assert decoding - 2 * codes.nbytes < 3_000_000
