"""Updates and sums in one vector: sums of vectors are vectors of sums, and nothing wraps or reaches over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import FixedPointRangeError, UsageError
from cardionets_core.privacy.secure_sum.vector import VectorForm


def make_form(parties: int, *, sizes=(3, 4), largest_update: float = 1.0) -> VectorForm:
    return VectorForm(
        updates=(("a", sizes[0]), ("b", sizes[1])),
        sums=(("n", (1,)), ("gram", (2, 3))),
        parties=parties,
        largest_update=largest_update,
        largest_sum=1e9,
    )


@settings(max_examples=60)
@given(
    parties=st.integers(1, 40),
    sizes=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seed=st.integers(0, 2**31),
    extreme=st.booleans(),
)
def test_the_sum_of_vectors_holds_the_sums(parties, sizes, seed, extreme):
    form, rng = make_form(parties, sizes=sizes), np.random.default_rng(seed)
    updates: dict[str, np.ndarray] = {name: np.zeros(size) for name, size in form.updates}
    sums: dict[str, np.ndarray] = {name: np.zeros(shape) for name, shape in form.sums}
    total = np.zeros(form.size, dtype=np.uint64)
    for _ in range(parties):
        given_updates = {name: rng.uniform(-1.0, 1.0, size) for name, size in form.updates}
        if extreme:
            # All at the same end: where a carry would show.
            given_updates = {name: np.sign(value) for name, value in given_updates.items()}
        given_sums = {name: rng.normal(size=shape) * 1e6 for name, shape in form.sums}
        total += form.pack(given_updates, given_sums)
        updates = {name: updates[name] + value for name, value in given_updates.items()}
        sums = {name: sums[name] + value for name, value in given_sums.items()}
    found_updates, found_sums = form.unpack(total, parties=parties)
    for name, value in updates.items():
        assert np.abs(found_updates[name] - value).max(initial=0.0) <= parties * form.halves.error * 1.001
    for name, value in sums.items():
        assert np.abs(found_sums[name] - value).max(initial=0.0) <= parties * form.wholes.error * 1.001 + 1e-9


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("parties", [2, 3, 7, 64])
def test_everybody_at_the_end_of_the_range_reaches_into_no_neighbour(parties, sign):
    form = make_form(parties, sizes=(1, 1))
    most = form.halves.largest
    vectors = [form.pack({"a": np.array([sign * most]), "b": np.array([-sign * most])}, {})] * parties
    updates, sums = form.unpack(sum(vectors, np.zeros(form.size, dtype=np.uint64)), parties=parties)
    assert updates["a"][0] == parties * sign * most and updates["b"][0] == -parties * sign * most
    assert sums["n"][0] == 0.0


def test_what_a_party_does_not_give_is_zero():
    form = make_form(3)
    updates, sums = form.unpack(form.pack({}, {}), parties=1)
    assert not any(value.any() for value in (*updates.values(), *sums.values()))


@pytest.mark.parametrize("value", [1.5, -1.5, np.nan, np.inf])
def test_a_value_beyond_the_range_is_refused_with_its_name(value):
    form = make_form(3)
    # The range is a power of two of steps at least as wide as was asked for.
    with pytest.raises(FixedPointRangeError, match="of b at"):
        form.pack({"b": np.array([0.0, value * 2, 0.0, 0.0])}, {})
    with pytest.raises(FixedPointRangeError, match="of gram at"):
        form.pack({}, {"gram": np.full((2, 3), value * 1e10)})


def test_strangers_and_other_shapes_are_refused():
    form = make_form(3)
    with pytest.raises(UsageError, match="no place for c"):
        form.pack({"c": np.zeros(3)}, {})
    with pytest.raises(UsageError, match="shape"):
        form.pack({"a": np.zeros(4)}, {})
    with pytest.raises(UsageError, match="not of"):
        form.unpack(np.zeros(form.size + 1, dtype=np.uint64), parties=1)
