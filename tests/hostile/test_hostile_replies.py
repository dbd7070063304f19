"""Replies of a site that lies: it is left out, named and counted, and the server goes on."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.audit import journal
from cardionets_core.config.study import ReplyBounds
from cardionets_core.errors import ReplyRefusedError
from cardionets_core.exchange.heads import Head
from cardionets_core.exchange.messages import (
    Envelope,
    Order,
    PackedModule,
    Reply,
    RoundName,
    reply_from_envelope,
    reply_to_envelope,
)
from cardionets_core.exchange.tensors import Layout
from cardionets_core.tasks import TASKS, ClosedFormTask, make_task
from cardionets_core.tasks.expected_sums import ExpectedSums
from server.gather import Gather
from server.head_trust import HeadTrust
from server.heads import SiteHeads
from server.members import Members
from server.next_model import _solution
from server.reply_checks import check_measured, check_reply, check_sums, check_values
from server.reply_journal import ReplyJournal
from server.round_store import RoundStore
from server.rounds import Answer, SiteLink
from simulation.local_grid import LocalGrid

NAME = RoundName(study_digest="ab" * 32, phase=0, round=1, attempt=1)
LAYOUT = Layout(names=("w",), shapes=((4,),))
ORDER = Order(kind="train", name=NAME, study_json="{}")
CENSUS = Order(kind="census", name=dataclasses.replace(NAME, round=0), study_json="{}")
EXPECTED = ExpectedSums("nano")


def good(**changes) -> Reply:
    module = PackedModule(layout=LAYOUT, values=np.ones(4, dtype=np.float32))
    content = {
        "site": "alpha",
        "name": NAME,
        "modules": {"m": module},
        "samples": {"m": 4},
        "values": {"loss": 1.0},
    }
    return Reply(**{**content, **changes})


FIELDS = {
    "a site that is a path, in a field of its name": {"value/../../site": 1.0},
    "a code in words": {"code": "Traceback (most recent call last)"},
    "a code of many lines": {"code": "a\nb"},
    "a reason in words": {"measure-code": "../x"},
    "facts of deep nesting": {"facts": "[" * 100_000},
    "facts of megabytes": {"facts": '"' + "x" * 1_000_001 + '"'},
    "facts that are not finite": {"facts": '{"patients":{"train":1e999}}'},
    "facts with a key twice": {"facts": '{"role":"member","role":"external"}'},
    "a count of a number": {"samples/m": 4.0},
    "a count of a truth value": {"samples/m": True},
    "a value in words": {"value/loss": "1"},
    "a form of nobody": {"form/module/m": "fp64"},
    "a layout that lies": {"layout/module/m": '[["w",[1e999]]]'},
    "a round that is none": {"round": -1},
    "more lines than a journal can have": {"head/lines": 2**60},
}


@pytest.mark.parametrize("changes", FIELDS.values(), ids=FIELDS)
def test_a_reply_with_such_a_field_is_refused(changes):
    envelope = reply_to_envelope(good())
    with pytest.raises(ReplyRefusedError):
        reply_from_envelope(Envelope(fields={**envelope.fields, **changes}, arrays=envelope.arrays))


@pytest.mark.parametrize(
    "values",
    [{"site": 1.0}, {"status": 1.0}, {"samples": 1.0}, {"code": 0.0}, {"bytes": -1.0}, {"loss": float("nan")},
     {"loss": float("inf")}, {"part/../x": 1.0}, dict.fromkeys((f"part/a{n}" for n in range(40)), 1.0)],
)  # fmt: skip
def test_values_that_would_stand_for_the_rows_own_keys_are_refused(values):
    """A value named ``site`` took the place of the site's name in the history, and the study ended."""
    with pytest.raises(ReplyRefusedError):
        check_values(good(values=values), site="alpha")
    with pytest.raises(ReplyRefusedError):
        check_reply(
            good(values=values), order=ORDER, site="alpha", layouts={"m": LAYOUT}, bounds=ReplyBounds()
        )


FACTS = {
    "deep nesting": "[" * 100_000,
    "a count without end": '{"patients":{"train":1e999}}',
    "a negative count": '{"patients":{"train":-1}}',
    "a count of nobody": '{"patients":{"../x":3}}',
    "words for a page": '{"role":"<script>"}',
    "a version that steers": '{"versions":{"flwr":"\\u001b[2J"}}',
    "a digest that is a path": '{"holds":["../../x"]}',
    "a digest that is a number": '{"holds":[1]}',
    "a list": "[]",
    "a key of its own": '{"hospital":"St. Elsewhere"}',
}


def enrolled(facts: str, site: str = "alpha") -> tuple[Members, str]:
    members = Members()
    reply = Reply(site=site, name=CENSUS.name, facts=facts)
    answer = Answer(node=7, reply=reply, code="", nbytes=0, seconds=0.0)
    return members, members.enrol(answer, CENSUS, task="ecg_mae")[1]


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_a_census_of_such_facts_is_refused_and_nothing_of_it_is_kept(facts):
    members, code = enrolled(facts)
    assert code == "reply-refused" and members.holds(7) == set()
    assert members.facts["alpha"] == {"site": "alpha", "phases": {"ecg_mae": code}, "role": "member"}
    json.dumps(members.facts, allow_nan=False)


@pytest.mark.parametrize("site", ["pooled", "../x", "a/b", "", "A", "a\n", "\ud800", "x" * 64])
def test_a_name_that_no_site_has_is_refused(site):
    members, code = enrolled("{}", site)
    assert code == "reply-refused" and list(members.facts) == ["node-7"]


def heads_of(tmp_path):
    path = tmp_path / "journal.jsonl"
    return SiteHeads(
        path, lambda event, facts: journal.append(path, event, facts), study_digest="", trust=HeadTrust()
    )


def compressed_key() -> str:
    """A point in its short form, which cryptography does not implement for OpenSSH."""
    import base64

    from cryptography.hazmat.primitives import serialization

    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    parts = [b"ecdsa-sha2-nistp384", b"nistp384", point]
    content = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"ecdsa-sha2-nistp384 {base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    "holder", [compressed_key(), "ecdsa-sha2-nistp384 AAAA", "ssh-rsa ", "-----BEGIN", "", "0"]
)
def test_a_head_under_a_key_that_cannot_be_read_is_a_refused_reply(tmp_path, holder):
    """A key with a compressed point ended the server: the library does not implement it."""
    reply = good(head=Head(lines=2, hash="cd" * 32, signature="00", holder=holder))
    with pytest.raises(ReplyRefusedError):
        heads_of(tmp_path).take(reply, ORDER, "alpha")


@pytest.mark.parametrize("value", [-1.0, 1e300, -1e300, np.nan, np.inf])
def test_sums_out_of_all_bounds_are_refused(value):
    with pytest.raises(ReplyRefusedError):
        check_sums(Reply(site="a", name=NAME, sums={"n": np.array([value])}), site="a", expected={"n": (1,)})


@pytest.mark.parametrize("name", sorted(TASKS))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=2)
def test_sums_that_contradict_each_other_leave_their_site_out(name, seed):
    """They ended the study: a prevalence of two, a table with negative counts, a division by zero."""
    task = make_task(name, {})
    expected, rng = EXPECTED.of_metrics(task), np.random.default_rng(seed)
    kinds = (
        np.zeros, np.ones, lambda s: -np.ones(s), lambda s: np.full(s, 1e-320), rng.random,
        lambda s: rng.normal(size=s) * 1e3, lambda s: np.full(s, 1e59), lambda s: np.full(s, 2.0**29),
    )  # fmt: skip
    for make in kinds:
        reply = Reply(
            site="a", name=NAME, sums={key: np.asarray(make(shape)) for key, shape in expected.items()}
        )
        try:
            check_measured(reply, site="a", expected=expected, task=task)
        except ReplyRefusedError:
            continue
        task.metrics(reply.sums)


@pytest.mark.parametrize("name", [name for name, kind in TASKS.items() if issubclass(kind, ClosedFormTask)])
def test_sums_that_lead_to_no_solution_enter_no_model(name):
    task = make_task(name, {})
    assert isinstance(task, ClosedFormTask)
    from cardionets_core.errors import CardioNetsError
    from cardionets_core.models import build_module

    names = [key for key, _ in build_module(task.trains[0], "nano", seed=0, device="meta").named_parameters()]
    rng = np.random.default_rng(0)
    for make in (
        np.zeros,
        lambda s: np.full(s, 1e59),
        lambda s: np.full(s, 1e-320),
        lambda s: rng.normal(size=s),
    ):
        sums = {key: np.asarray(make(shape)) for key, shape in EXPECTED.of_training(task).items()}
        try:
            assert np.isfinite(_solution(task, sums, names)).all()
        except CardioNetsError as refused:
            assert refused.what


class Node(SiteLink):
    """A link to one site that answers with what a test gives."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(LocalGrid([]), poll_s=0.001, longest_poll_s=0.001)
        self.reply = reply

    def push(self, orders, *, ttl_s):
        return dict.fromkeys(("m",), next(iter(orders)))

    def pull(self, message_id, *, node, seconds):
        return Answer(node=node, reply=self.reply, code="", nbytes=1, seconds=seconds)


REPLIES = st.builds(
    good,
    site=st.sampled_from(["alpha", "../alpha", "beta", "pooled"]),
    samples=st.dictionaries(st.sampled_from(["m", "../m"]), st.integers(-2, 2**70), max_size=2),
    sums=st.dictionaries(st.sampled_from(["n", "../n", "a/b"]), st.just(np.ones(2)), max_size=1),
    values=st.dictionaries(st.sampled_from(["loss", "site", "role"]), st.floats(), max_size=2),
    code=st.sampled_from(["", "", "internal", "late"]),
)


@given(REPLIES)
@settings(max_examples=60)
def test_any_reply_is_stored_whole_in_its_folder_or_its_site_is_left_out(tmp_path_factory, reply):
    folder = tmp_path_factory.mktemp("round")
    members = Members()
    members.connect({7: "alpha"})
    store = RoundStore(folder / "store")

    def judge(found, order, node, site):
        check_reply(found, order=order, site=site, layouts={"m": LAYOUT}, bounds=ReplyBounds())
        check_sums(found, site=site, expected={})
        return found, 1.0

    gather = Gather(
        Node(reply), members, ReplyJournal(folder / "run"), store=store, judge=judge, tell=lambda row: None,
        make_orders=lambda nodes, attempt: dict.fromkeys(nodes, ORDER), deadline_s=1.0,
    )  # fmt: skip
    found = gather.run(lambda afresh, counted: [7])
    journal.verify(folder / "run" / "journal.jsonl")
    assert sorted(path.name for path in folder.iterdir()) == ["run", "store"]
    assert store.sites() == ([] if found.failed else ["alpha"])
    json.dumps(found.failed, allow_nan=False).encode()
    if store.sites():
        assert reply.site == "alpha" and reply.samples.keys() == {"m"} and not reply.sums
