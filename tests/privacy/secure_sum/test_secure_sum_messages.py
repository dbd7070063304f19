"""Every message has one spelling in bytes; all other bytes are refused, and by nothing but the refusal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import SecureSumError
from cardionets_core.privacy import secure_sum
from cardionets_core.privacy.secure_sum import Terms, encoding
from cardionets_core.privacy.secure_sum.encoding import MAX_BYTES, Message
from cardionets_core.privacy.secure_sum.site_state import HeldShares, SiteState

KINDS = [getattr(secure_sum, name) for name in secure_sum.__all__]
KINDS = [kind for kind in KINDS if issubclass(kind, Message)] + [HeldShares, SiteState]


@pytest.fixture(scope="module")
def examples(play):
    """One honest message of each kind, and a state at each step."""
    run = play(4, 3).advertise()
    states = [run.sites["site-0"]._state]
    run.share()
    states.append(run.sites["site-0"]._state)
    run.mask(["site-0", "site-1", "site-2"])
    states.append(run.sites["site-0"]._state)
    run.confirm()
    states.append(run.sites["site-0"]._state)
    run.unmask()
    states.append(run.sites["site-0"]._state)
    bundle, reply = run.server._bundles["site-0"], run.server._replies["site-0"]
    found = [run.participants, run.participants.adverts[0], bundle, bundle.envelopes[0]]
    found += [run.deliveries["site-0"], run.survivors, run.request, run.request.confirmations[0]]
    return [*found, reply, reply.shares[3], states[1].held[0], *states]


def test_there_is_an_example_of_each_kind(examples):
    assert {type(message) for message in examples} == set(KINDS)
    assert len({kind.KIND for kind in KINDS}) == len(KINDS)


def test_bytes_give_the_message_back_and_are_its_only_spelling(examples, refused):
    for message in examples:
        content = message.to_bytes()
        assert type(message).from_bytes(content) == message
        parsed = json.loads(content)
        for other in (
            json.dumps(parsed).encode(),
            json.dumps(parsed, separators=(",", ":"), sort_keys=True).upper().encode(),
            content + b"\n",
            b" " + content,
            content.replace(b'{"fields"', b'{"fields":{},"fields"', 1),
        ):
            with refused("malformed"):
                type(message).from_bytes(other)


def test_no_message_is_read_as_another(examples, refused):
    for message in examples:
        for kind in KINDS:
            if kind is not type(message):
                with refused("malformed"):
                    kind.from_bytes(message.to_bytes())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("00" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    place=st.integers(0, 10**6),
    change=st.sampled_from(["cut", "flip", "insert"]),
    extra=st.binary(max_size=9),
)
def test_bytes_that_were_changed_are_another_message_or_none(examples, place, change, extra):
    message = examples[place % len(examples)]
    content = message.to_bytes()
    at = place % len(content)
    hostile = {
        "cut": content[:at],
        "flip": content[:at] + bytes([content[at] ^ (1 + place % 255)]) + content[at + 1 :],
        "insert": content[:at] + extra + content[at:],
    }[change]
    try:
        read = type(message).from_bytes(hostile)
    except SecureSumError as error:
        assert error.reason == "malformed"
    else:
        assert read.to_bytes() == hostile


@settings(max_examples=200)
@given(data=st.data())
def test_fields_of_any_other_type_are_refused(examples, data):
    message = data.draw(st.sampled_from(examples))
    parsed = json.loads(message.to_bytes())
    node, key = parsed, data.draw(st.sampled_from(sorted(parsed)))
    while isinstance(node[key], (dict, list)) and node[key] and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    value = data.draw(VALUES)
    node[key] = value
    content = json.dumps(parsed, sort_keys=True, separators=(",", ":")).encode()
    try:
        read = type(message).from_bytes(content)
    except SecureSumError as error:
        assert error.reason == "malformed"
    else:
        assert read.to_bytes() == content


@given(content=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_any_bytes_at_all_give_the_refusal(content, kind):
    with pytest.raises(SecureSumError) as caught:
        kind.from_bytes(content)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"fields":' * 100_000,
        b'{"fields":' + b"9" * 100_000 + b',"format":1,"kind":"survivors"}',
        b'{"fields":{"session":"'
        + b"0" * 64
        + b'","sites":['
        + b'"a",' * 257
        + b'"a"]},"format":1,"kind":"survivors"}',
        b'{"fields":{"session":NaN,"sites":[]},"format":1,"kind":"survivors"}',
        b'{"fields":{"session":"' + b"0" * 64 + b'","sites":[]},"format":true,"kind":"survivors"}',
        b'{"fields":{"session":"' + b"0" * 64 + b'","sites":[]},"format":1.0,"kind":"survivors"}',
        b"\xff\xfe",
        b"",
        b"x" * (MAX_BYTES + 1),
        "text",
        None,
    ],
    ids=lambda content: str(content)[:20],
)
def test_bytes_made_to_hurt(content, refused):
    with refused("malformed"):
        secure_sum.Survivors.from_bytes(content)


def test_numbers_out_of_bounds(examples, refused):
    content = examples[0].to_bytes()
    for wrong in (b"257", b"-1", b"true", b"3.0", b"1e2"):
        assert b'"threshold":3' in content
        with refused("malformed"):
            secure_sum.Participants.from_bytes(content.replace(b'"threshold":3', b'"threshold":' + wrong))


def test_a_state_whose_parts_belong_to_different_steps_is_none(examples, refused):
    states = [message for message in examples if isinstance(message, SiteState)]
    for state in states:
        for other in states:
            if other is not state:
                content = state.to_bytes().replace(
                    b'"step":"' + state.step.encode(), b'"step":"' + other.step.encode()
                )
                with refused("malformed"):
                    SiteState.from_bytes(content)


def test_terms_that_protect_nobody(play, refused):
    terms = play(3, 2).terms
    for threshold, reason in ((1, "threshold-too-low"), (0, "threshold-too-low"), (5, "too-few-sites")):
        with refused(reason):
            Terms(session=terms.session, threshold=threshold, roster=terms.roster)
    with refused("malformed"):
        Terms(session=terms.session, threshold=2, roster={"A b": None, "site-1": None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"study_digest": "AB" * 32},
        {"study_digest": ""},
        {"phase": -1},
        {"round": True},
        {"attempt": 0},
        {"attempt": 1 << 31},
        {"purpose": ""},
        {"purpose": "Up date"},
    ],
)
def test_a_session_needs_a_whole_name(play, refused, wrong):
    with refused("malformed"):
        play(3, 2, **wrong)


def test_every_part_of_a_sessions_name_counts(play):
    names = [{}, {"study_digest": "cd" * 32}, {"phase": 4, "round": 1}, {"attempt": 2}, {"purpose": "counts"}]
    names += [{"phase": 14, "round": 4}, {"phase": 1, "round": 44}]
    assert len({play(3, 2, **name).terms.session.digest() for name in names}) == len(names)


def test_what_is_too_long_is_not_even_parsed(examples, refused, monkeypatch):
    content = examples[0].to_bytes()
    monkeypatch.setattr(encoding, "MAX_BYTES", len(content))
    assert type(examples[0]).from_bytes(content) == examples[0]
    monkeypatch.setattr(encoding, "MAX_BYTES", len(content) - 1)
    with refused("malformed"):
        type(examples[0]).from_bytes(content)
