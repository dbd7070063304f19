"""Identities of packing and of the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cardionets_core.errors import FormatTooNewError, OrderRefusedError, PeerError, ReplyRefusedError
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
from cardionets_core.exchange.tensors import (
    Layout,
    layout_of,
    model_digest,
    module_digest,
    pack,
    unpack,
)

NAME = RoundName(study_digest="ab" * 32, phase=1, round=3, attempt=1)

tensors = st.dictionaries(
    st.text("abc.", max_size=5).map("w".__add__),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    max_size=4,
)


@given(tensors)
def test_unpack_undoes_pack_to_the_bit(named):
    layout = layout_of(named)
    back = unpack(Layout.from_json(layout.to_json()), pack(named))
    assert list(back) == list(named)
    for name, value in named.items():
        assert back[name].shape == value.shape
        assert back[name].tobytes() == value.tobytes()


def test_pack_refuses_what_is_not_float32():
    with pytest.raises(PeerError):
        pack({"w": np.zeros(2)})


def test_unpack_refuses_another_size():
    layout = layout_of({"w": np.zeros((2, 2), np.float32)})
    for wrong in (np.zeros(3, np.float32), np.zeros(4), np.zeros((2, 2), np.float32)):
        with pytest.raises(PeerError):
            unpack(layout, wrong)


@pytest.mark.parametrize("text", ["", "{", "[[1]]", '[["a",[-1]]]', '[["a",[1]],["a",[1]]]', "3"])
def test_a_hostile_layout_is_a_peer_error(text):
    with pytest.raises(PeerError):
        Layout.from_json(text)


def test_digests_see_names_shapes_and_bits_but_not_the_order_of_modules():
    one = {"w": np.arange(4, dtype=np.float32)}
    two = {"w": np.arange(4, dtype=np.float32).reshape(2, 2)}
    three = {"v": np.arange(4, dtype=np.float32)}
    four = {"w": np.nextafter(np.arange(4, dtype=np.float32), np.float32(9))}
    digests = {module_digest(layout_of(x), pack(x)) for x in (one, two, three, four)}
    assert len(digests) == 4
    assert model_digest({"a": "1", "b": "2"}) == model_digest({"b": "2", "a": "1"})
    assert model_digest({"a": "1", "b": "2"}) != model_digest({"a": "2", "b": "1"})


def packed(*shape):
    values = {"w": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    return PackedModule(layout=layout_of(values), values=pack(values))


def test_an_order_and_a_reply_come_back_as_they_went():
    order = Order(
        kind="train",
        name=NAME,
        study_json="{}",
        modules={"ecg_encoder": packed(3, 2)},
        frozen={"cmr_encoder": "cd" * 32},
        frozen_modules={"cmr_encoder": packed(4)},
        split="test",
    )
    back = order_from_envelope(order_to_envelope(order))
    assert (back.kind, back.name, back.study_json, back.frozen, back.split) == (
        "train", NAME, "{}", order.frozen, "test",
    )  # fmt: skip
    np.testing.assert_array_equal(back.modules["ecg_encoder"].values, order.modules["ecg_encoder"].values)
    assert back.frozen_modules["cmr_encoder"].layout == order.frozen_modules["cmr_encoder"].layout
    reply = Reply(
        site="a",
        name=NAME,
        modules={"m": packed(2)},
        samples={"m": 5},
        sums={"x/y": np.ones((2, 3))},
        values={"loss": 0.5},
    )
    again = reply_from_envelope(reply_to_envelope(reply))
    assert (again.site, again.samples, again.values, again.code) == ("a", {"m": 5}, {"loss": 0.5}, "")
    np.testing.assert_array_equal(again.sums["x/y"], np.ones((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "1"},
        {"round": True},
        {"study-digest": 7},
        {"kind": "destroy"},
        {"split": "train"},
        {"format": None},
        {"layout/module/m": "nonsense"},
    ],
)
def test_an_order_with_a_wrong_field_is_refused(change):
    envelope = order_to_envelope(Order(kind="train", name=NAME, study_json="{}", modules={"m": packed(2)}))
    with pytest.raises(OrderRefusedError):
        order_from_envelope(Envelope(fields={**envelope.fields, **change}, arrays=envelope.arrays))


def test_a_newer_format_is_told_apart():
    envelope = order_to_envelope(Order(kind="census", name=NAME, study_json="{}"))
    with pytest.raises(FormatTooNewError):
        order_from_envelope(Envelope(fields={**envelope.fields, "format": 99}, arrays={}))


@pytest.mark.parametrize("change", [{"site": 3}, {"samples/m": 1.5}, {"value/loss": "big"}, {"facts": 1}])
def test_a_reply_with_a_wrong_field_is_refused(change):
    envelope = reply_to_envelope(Reply(site="a", name=NAME))
    with pytest.raises(ReplyRefusedError):
        reply_from_envelope(Envelope(fields={**envelope.fields, **change}, arrays={}))
