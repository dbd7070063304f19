"""Updates in bf16 and int8: error bounds, exact cases, and all that is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cardionets_core.errors import OrderRefusedError, PeerError, ReplyRefusedError
from cardionets_core.exchange.messages import (
    Envelope,
    Order,
    PackedModule,
    Reply,
    RoundName,
    order_from_envelope,
    order_to_envelope,
    reply_from_envelope,
    reply_to_envelope,
)
from cardionets_core.exchange.precision import BLOCK_VALUES, CHUNK_VALUES, FORMS, decode, encode, wire_bytes
from cardionets_core.exchange.tensors import layout_of, pack
from cardionets_core.exchange.updates import from_update, to_update

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**126), max_value=2.0**126)
VALUES = arrays(np.float32, st.integers(0, 3 * BLOCK_VALUES), elements=FINITE, fill=FINITE)
NAME = RoundName(study_digest="a" * 64, phase=0, round=1, attempt=1)
LOSSY = ("bf16", "int8")


def module(values, **more):
    return PackedModule(layout=layout_of({"w": values}), values=pack({"w": values}), **more)


@given(VALUES, st.sampled_from(FORMS))
def test_what_travels_has_the_bytes_that_are_told_and_comes_back_within_the_bound(values, form):
    coded = encode(values, form)
    assert coded.codes.nbytes + coded.scales.nbytes == wire_bytes(form, values.size)
    back = decode(coded, size=values.size)
    assert back.dtype == np.float32
    error = np.abs(values.astype(np.float64) - back)
    if form == "fp32":
        assert not error.any()
    elif form == "bf16":
        assert (error <= np.maximum(np.abs(values).astype(np.float64) * 2.0**-8, 2.0**-134)).all()
    else:
        scale = coded.scales.astype(np.float64).repeat(BLOCK_VALUES)[: values.size]
        # The product of code and scale is itself a float32.
        assert (error <= scale / 2 * (1 + 2.0**-15) + 2.0**-149).all()
        for number, each in enumerate(coded.scales):
            largest = np.abs(values[number * BLOCK_VALUES :][:BLOCK_VALUES]).max()
            wanted = Fraction(float(largest)) / 127
            below = Fraction(float(np.nextafter(each, np.float32(0)))) if each else Fraction(0)
            assert below <= wanted <= Fraction(float(each))


@given(VALUES)
def test_bf16_rounds_as_torch_does(values):
    theirs = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(decode(encode(values, "bf16"), size=values.size), theirs)


@given(
    arrays(np.int8, st.integers(1, 2 * BLOCK_VALUES), elements=st.integers(-127, 127)), st.integers(-60, 60)
)
def test_whole_multiples_of_the_scale_come_back_exactly(codes, power):
    codes[::BLOCK_VALUES] = 127
    values = codes.astype(np.float32) * np.float32(2.0**power)
    coded = encode(values, "int8")
    np.testing.assert_array_equal(coded.codes, codes)
    np.testing.assert_array_equal(decode(coded, size=values.size), values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [0, 1, BLOCK_VALUES - 1, BLOCK_VALUES, BLOCK_VALUES + 1, CHUNK_VALUES + 3])
def test_zeros_stay_zeros_at_every_size(form, size):
    coded = encode(np.zeros(size, dtype=np.float32), form)
    assert not coded.codes.any() and not coded.scales.any()
    assert not decode(coded, size=size).any()


def test_blocks_and_chunks_do_not_touch_one_another():
    values = np.random.default_rng(0).standard_normal(CHUNK_VALUES + 2 * BLOCK_VALUES + 5).astype(np.float32)
    whole = decode(encode(values, "int8"), size=values.size)
    for start in (0, BLOCK_VALUES, CHUNK_VALUES, CHUNK_VALUES + 2 * BLOCK_VALUES):
        part = values[start : start + BLOCK_VALUES]
        alone = decode(encode(part, "int8"), size=part.size)
        np.testing.assert_array_equal(whole[start : start + BLOCK_VALUES], alone)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_coded(form, bad):
    with pytest.raises(PeerError):
        encode(np.array([0.0, bad], dtype=np.float32), form)


def test_a_value_that_bf16_would_round_to_infinity_is_not_coded():
    with pytest.raises(PeerError, match="too large"):
        encode(np.array([np.finfo(np.float32).max]), "bf16")


@pytest.mark.parametrize(
    "form, change",
    [
        ("int8", lambda coded: replace(coded, scales=coded.scales * np.float32(np.nan))),
        ("int8", lambda coded: replace(coded, scales=np.full_like(coded.scales, np.inf))),
        ("int8", lambda coded: replace(coded, scales=-coded.scales)),
        ("int8", lambda coded: replace(coded, scales=np.full_like(coded.scales, 3e38))),
        ("int8", lambda coded: replace(coded, scales=coded.scales.astype(np.float64))),
        ("int8", lambda coded: replace(coded, scales=coded.scales[:-1])),
        ("int8", lambda coded: replace(coded, scales=np.append(coded.scales, np.float32(1)))),
        ("int8", lambda coded: replace(coded, codes=np.full_like(coded.codes, -128))),
        ("int8", lambda coded: replace(coded, codes=coded.codes.astype(np.float32))),
        ("int8", lambda coded: replace(coded, codes=coded.codes[:-1])),
        ("int8", lambda coded: replace(coded, form="fp32")),
        ("bf16", lambda coded: replace(coded, codes=np.full_like(coded.codes, 0x7F80))),
        ("bf16", lambda coded: replace(coded, codes=np.full_like(coded.codes, 0xFFC0))),
        ("bf16", lambda coded: replace(coded, codes=coded.codes.astype(np.int16))),
        ("bf16", lambda coded: replace(coded, codes=coded.codes.reshape(1, -1))),
        ("bf16", lambda coded: replace(coded, scales=np.ones(1, dtype=np.float32))),
    ],
)
def test_hostile_codes_and_scales_are_refused(form, change):
    coded = encode(np.linspace(-2, 2, BLOCK_VALUES + 7, dtype=np.float32), form)
    with pytest.raises(PeerError):
        decode(change(coded), size=BLOCK_VALUES + 7)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_with_error_feedback_the_sum_of_updates_lacks_only_the_last_remainder(seed, rounds):
    rng = np.random.default_rng(seed)
    sent, carried = np.zeros(300, dtype=np.float32), None
    total, came = np.zeros(300), np.zeros(300)
    for _ in range(rounds):
        change = rng.standard_normal(300).astype(np.float32) * np.float32(10.0 ** rng.integers(-3, 3))
        update, carried = to_update(module(change), sent, "int8", carried=carried)
        total += change
        came += from_update(update, sent).values
    np.testing.assert_allclose(came + carried, total, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("form", LOSSY)
def test_a_tensor_that_did_not_move_comes_back_bit_for_bit(form):
    sent = np.array([-0.0, 0.0, 1e-40, -3.0, 7.5], dtype=np.float32)
    trained = sent.copy()
    trained[-1] += 0.25
    update, _ = to_update(module(trained), sent, form)
    assert not update.values[:-1].any()
    assert from_update(update, sent).values[:-1].tobytes() == sent[:-1].tobytes()


@pytest.mark.parametrize("form", LOSSY)
def test_an_update_that_leads_out_of_float32_is_refused(form):
    sent = np.full(3, 3e38, dtype=np.float32)
    update, _ = to_update(module(np.full(3, 1e38, dtype=np.float32)), np.zeros(3, dtype=np.float32), form)
    with pytest.raises(PeerError, match="not finite"):
        from_update(update, sent)
    with pytest.raises(PeerError):
        to_update(module(sent), -sent, form)


# -- the wire form -------------------------------------------------------------------------------------------


def reply_in(form):
    sent = np.zeros(BLOCK_VALUES + 3, dtype=np.float32)
    trained = module(np.linspace(-1, 1, sent.size, dtype=np.float32))
    packed = trained if form == "fp32" else to_update(trained, sent, form)[0]
    return Reply(site="a", name=NAME, modules={"m": packed}, samples={"m": 3})


@pytest.mark.parametrize("form", FORMS)
def test_a_reply_in_each_form_survives_the_wire(form):
    reply = reply_in(form)
    envelope = reply_to_envelope(reply)
    assert envelope.nbytes == wire_bytes(form, BLOCK_VALUES + 3)
    back = reply_from_envelope(envelope).modules["m"]
    assert (back.form, back.layout) == (form, reply.modules["m"].layout)
    np.testing.assert_array_equal(back.values, reply.modules["m"].values)
    np.testing.assert_array_equal(back.scales, reply.modules["m"].scales)


def test_fp32_travels_without_a_word_on_its_form():
    envelope = reply_to_envelope(reply_in("fp32"))
    assert set(envelope.arrays) == {"module/m"} and not [
        key for key in envelope.fields if key.startswith("form/")
    ]


@pytest.mark.parametrize("named", ["fp16", "", 8])
def test_an_unknown_form_is_refused(named):
    envelope = reply_to_envelope(reply_in("int8"))
    fields = {**envelope.fields, "form/module/m": named}
    with pytest.raises(ReplyRefusedError):
        reply_from_envelope(Envelope(fields=fields, arrays=envelope.arrays))


def test_scales_without_their_form_are_refused():
    envelope = reply_to_envelope(reply_in("int8"))
    fields = {key: value for key, value in envelope.fields.items() if key != "form/module/m"}
    with pytest.raises(ReplyRefusedError, match="scales"):
        reply_from_envelope(Envelope(fields=fields, arrays=envelope.arrays))


@pytest.mark.parametrize("form", LOSSY)
@pytest.mark.parametrize("place", ["modules", "frozen_modules"])
def test_an_order_brings_modules_in_fp32_only(form, place):
    order = Order(kind="train", name=NAME, study_json="{}", **{place: dict(reply_in(form).modules)})
    with pytest.raises(OrderRefusedError, match="fp32"):
        order_from_envelope(order_to_envelope(order))
