"""Bytes of arrays and texts of layouts: numbers of the size that they claim, or a refusal, in little time."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import PeerError
from cardionets_core.exchange.npy import from_npy, to_npy
from cardionets_core.exchange.tensors import Layout, unpack

VALUES = bytes(24)


def npy(header: str, values: bytes = VALUES, *, version: bytes = b"\x01\x00") -> bytes:
    content = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(content).to_bytes(2, "little") + content + values


def header(*, descr="'<f4'", fortran="False", shape="(6,)"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


HEADERS = {
    "more than the file holds": header(shape="(7,)"),
    "less than the file holds": header(shape="(5,)"),
    "two negative sides": header(shape="(-2, -3)"),
    "a product that overflows": header(shape="(4294967296, 4294967296, 1)"),
    "nothing beside more than memory": header(shape="(0, 999999999999999)"),
    "seventy sides": header(shape=f"({', '.join(['1'] * 70)})"),
    "objects": header(descr="'|O'"),
    "text": header(descr="'<U2'"),
    "a date": header(descr="'<M8[s]'"),
    "complex numbers": header(descr="'<c8'"),
    "fields": header(descr="[('a', '<f4')]"),
    "an empty type": header(descr="()"),
    "a type of no size": header(descr="'<f0'"),
    "a type that numpy lacks": header(descr="'<f3'"),
    "Fortran order": header(fortran="True", shape="(2, 3)"),
    "a word for the order": header(fortran="'no'"),
    "a side in words": header(shape="('6',)"),
    "a truth value for a side": header(shape="(True, 6)"),
    "a minus of thousands of signs": header(shape="(" + "-" * 900 + "6,)"),
    "parentheses in parentheses": header(shape="(" * 300 + "6" + ")" * 300),
    "an open bracket": header(shape="(6,"),
    "an indent": "  \n   " + header(),
    "a remark": header() + " # and more",
    "another key": header()[:-1] + "'more': 1, }",
    "a call": header(shape="__import__('os').sched_yield() and (6,)"),
    "nothing": "",
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_an_array_with_such_a_header_is_refused(text):
    start = time.monotonic()
    with pytest.raises(PeerError):
        from_npy(npy(text))
    assert time.monotonic() - start < 2.0


def test_headers_of_other_versions_and_ends_are_refused():
    for content in (
        npy(header(), version=b"\x02\x00"), npy(header(), version=b"\x09\x09"), npy(header(), VALUES[:-1]),
        npy(header(), VALUES + b"x"), npy(header())[:9], b"\x93NUMPY\x01\x00\xff\xff", b"",
    ):  # fmt: skip
        with pytest.raises(PeerError):
            from_npy(content)
    assert from_npy(npy(header())).shape == (6,)


def test_a_header_of_digits_costs_no_time():
    """A pattern that can match one text in many ways needs time without end to refuse it."""
    start = time.monotonic()
    for text in ("1" * 900, "1, " * 300, "1" * 15 + ", " + "1" * 800):
        with pytest.raises(PeerError):
            from_npy(npy(header(shape=f"({text}")))
    assert time.monotonic() - start < 2.0


@given(st.integers(0, 90), st.binary(max_size=4), st.integers(0, 40))
@settings(max_examples=200)
def test_a_wound_is_refused_or_gives_numbers(place, more, cut):
    content = to_npy(np.arange(6, dtype=np.float32).reshape(2, 3))
    try:
        found = from_npy(content[:place] + more + content[place + cut :])
    except PeerError:
        return
    assert found.dtype.kind in "biuf" and found.nbytes <= len(content)


@given(st.lists(st.integers(0, 2**70), max_size=20), st.sampled_from(["f4", "f8", "i1", "O", "U3", "V2"]))
@settings(max_examples=150)
def test_any_shape_is_of_its_bytes_or_refused(shape, kind):
    text = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    try:
        found = from_npy(npy(header(descr=f"'<{kind}'", shape=text)))
    except PeerError:
        return
    assert found.shape == tuple(shape) and found.nbytes == len(VALUES)


@given(
    st.lists(st.tuples(st.text("ab.", min_size=1, max_size=3), st.lists(st.integers(-2, 2**50), max_size=5)))
)
@settings(max_examples=150)
def test_a_layout_is_written_as_ours_are_or_refused(rows):
    import json

    text = json.dumps([[name, shape] for name, shape in rows], separators=(",", ":"))
    try:
        layout = Layout.from_json(text)
    except PeerError:
        return
    assert layout.to_json() == text
    if layout.size < 1000:
        assert (
            sum(value.size for value in unpack(layout, np.zeros(layout.size, np.float32)).values())
            == layout.size
        )
    with pytest.raises(PeerError):
        unpack(layout, np.zeros(layout.size % 97 + 1, np.float64))


def test_numpy_reads_what_we_accept():
    content = to_npy(np.zeros((3, 0), dtype=np.float32))
    assert np.load(io.BytesIO(content), allow_pickle=False).shape == from_npy(content).shape
