"""Arrays as .npy bytes: numpy reads what we write and the other way round; anything else is refused."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cardionets_core.errors import PeerError
from cardionets_core.exchange.npy import from_npy, to_npy

ARRAYS = hnp.arrays(
    dtype=st.sampled_from(["<f4", "<f8", "<i8", "<u2", "|b1", "|u1", "<f2"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@given(ARRAYS)
def test_the_bytes_are_those_of_numpy(array):
    array = np.ascontiguousarray(array).reshape(array.shape)
    assert to_npy(array) == saved(array)


@given(ARRAYS)
def test_what_numpy_wrote_is_read(array):
    found = from_npy(saved(np.ascontiguousarray(array).reshape(array.shape)))
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert not found.flags.writeable


def test_a_strided_array_travels_in_its_order():
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3]
    np.testing.assert_array_equal(from_npy(to_npy(array)), array)


def test_reading_makes_no_copy():
    content = to_npy(np.arange(1000, dtype=np.float32))
    held = np.frombuffer(content, dtype=np.uint8)
    assert np.shares_memory(from_npy(content), held)


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused(content):
    with pytest.raises(PeerError):
        from_npy(content)


@given(cut=st.integers(1, 120))
def test_a_cut_or_longer_file_is_refused(cut):
    content = to_npy(np.arange(20, dtype=np.float32))
    for wrong in (content[:-cut], content + b"x" * cut):
        with pytest.raises(PeerError):
            from_npy(wrong)


def test_objects_and_fortran_order_are_refused():
    with pytest.raises(PeerError, match="objects"):
        to_npy(np.array([{}], dtype=object))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(PeerError):
        from_npy(buffer.getvalue())
    with pytest.raises(PeerError):
        from_npy(saved(np.asfortranarray(np.ones((2, 3), dtype=np.float32))))
