"""What the gate judged, digested and journalled is what lies in Flower's records; codes pass it too."""

import functools
import json
import stat

import numpy as np
import pytest
import yaml
from flwr.app import Message

from cardionets_core.audit import journal
from cardionets_core.config.study import Study
from cardionets_core.exchange.content_digest import content_digest, text_bytes
from cardionets_core.exchange.heads import PURPOSE, signed_content, site_journal
from cardionets_core.exchange.messages import (
    Envelope,
    Order,
    RoundName,
    order_to_envelope,
    reply_from_envelope,
)
from cardionets_core.trust.keys import read_private
from cardionets_core.trust.signatures import fits
from client import leaving
from client.app import make_app
from client.round import respond
from server.records import from_records, to_records
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

SECRET = "9000011 of ward 3"
TYPES = {"census": "query.census", "statistics": "query.statistics"}


@pytest.fixture
def site(hospitals):
    return hospitals["alpha"]


def study() -> Study:
    phase = {"task": "ecg_mae", "rounds": 2, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    return Study.model_validate({"name": "gate", "seed": 3, "phases": [phase]})


def order(kind, packed_modules=None, **changes):
    number = 0 if kind == "census" else 1
    name = RoundName(study_digest=study().digest, phase=0, round=number, attempt=1)
    content = {"kind": kind, "name": name, "study_json": study().to_json(), "modules": packed_modules or {}}
    return Order(**{**content, **changes})


def modules():
    from cardionets_core.models import build_module
    from client.modules import pack_module

    return {name: pack_module(build_module(name, "nano", seed=1)) for name in ("ecg_encoder", "ecg_decoder")}


def ask(asked, path):
    """The envelope in the records of the reply to one order."""
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, (path,)))])
    kind = TYPES.get(asked.kind, asked.kind)
    message = Message(to_records(order_to_envelope(asked)), dst_node_id=1000, message_type=kind)
    (reply,) = grid.send_and_receive([message])
    return from_records(reply.content)


def lines(path):
    found = path.parent / "state" / "journal.jsonl"
    journal.verify(found)
    return list(journal.bodies(found))


def rewrite(path, **policy):
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "policy": {**content["policy"], **policy}}))


@pytest.mark.parametrize("kind", ["census", "train", "evaluate"])
def test_the_line_is_of_the_very_fields_and_arrays_that_travel(site, kind):
    came = ask(order(kind, modules() if kind != "census" else None), site)
    (line,) = lines(site)
    assert line["event"] == "reply-left" and line["kind"] == kind
    assert line["digest"] == content_digest(came)
    assert line["bytes"] == came.nbytes == sum(value.nbytes for value in came.arrays.values())
    bare = {name: value for name, value in came.fields.items() if not name.startswith("head/")}
    assert line["text_bytes"] == text_bytes(Envelope(fields=bare, arrays=came.arrays))
    # One bit more or less is another digest.
    spoiled = {**bare, "site": "alphb"}
    assert content_digest(Envelope(fields=spoiled, arrays=came.arrays)) != line["digest"]


def test_the_reply_carries_the_signed_head_that_its_own_line_makes(site):
    head = reply_from_envelope(ask(order("census"), site)).head
    path, key_file = site.parent / "state" / "journal.jsonl", site.parent / "state" / "journal.key"
    assert (head.lines, head.hash) == journal.head(path) == (1, journal.hash_of(path, 1))
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = read_private(key_file.read_bytes(), where="test").public_key()
    content = signed_content(head, journal=site_journal("alpha"))
    assert fits(key, bytes.fromhex(head.signature), content, purpose=PURPOSE)
    assert not fits(key, bytes.fromhex(head.signature), content, purpose="something else")
    again = reply_from_envelope(ask(order("census"), site)).head
    assert again.lines == 2 and again.holder == head.holder


def test_a_reply_that_is_asked_for_again_carries_the_head_of_its_new_line(site):
    asked = order("evaluate", modules())
    first, second = ask(asked, site), ask(asked, site)
    assert content_digest(first) == content_digest(second)
    heads = [reply_from_envelope(each).head for each in (first, second)]
    assert [head.lines for head in heads] == [1, 2] and heads[0].hash != heads[1].hash
    assert [line["event"] for line in lines(site)] == ["reply-left", "reply-sent-again"]


def test_nothing_can_be_changed_after_the_gate(site):
    envelope = respond(order("train", modules()), site_path=site)
    with pytest.raises(TypeError):
        envelope.fields["ward"] = SECRET
    with pytest.raises(TypeError):
        envelope.arrays["ward"] = np.zeros(1)
    with pytest.raises(ValueError, match="read-only"):
        envelope.arrays["module/ecg_encoder"][0] = 1.0


@pytest.mark.parametrize("what", ["field", "array"])
def test_what_somebody_adds_to_replies_is_stopped_until_it_is_allowed(site, monkeypatch, what):
    honest = leaving.reply_to_envelope

    def adding(reply):
        made = honest(reply)
        if reply.code:
            return made
        fields = {**made.fields, **({"note": SECRET} if what == "field" else {})}
        arrays = {**made.arrays, **({"signals": np.ones((1, 12))} if what == "array" else {})}
        return Envelope(fields=fields, arrays=arrays)

    monkeypatch.setattr(leaving, "reply_to_envelope", adding)
    came = ask(order("census"), site)
    assert came.fields["code"] == "disclosure-refused" and not came.arrays
    assert SECRET not in repr(dict(came.fields))
    assert [line["event"] for line in lines(site)] == ["refusal-left"]


def test_codes_pass_the_gate_and_are_journalled(site):
    rewrite(site, phases=["align"])
    came = ask(order("train", modules()), site)
    (line,) = lines(site)
    assert (line["event"], line["code"], line["bytes"]) == ("refusal-left", "phase-not-permitted", 0)
    assert line["digest"] == content_digest(came)
    head = reply_from_envelope(came).head
    assert (head.lines, head.hash) == journal.head(site.parent / "state" / "journal.jsonl")
    filled = {name for name, value in came.fields.items() if value not in ("", 0)}
    assert {name for name in filled if not name.startswith("head/")} == {
        "format", "study-digest", "round", "attempt", "site", "code"
    }  # fmt: skip


def test_a_code_leaves_without_a_head_where_the_document_is_broken(site):
    site.write_text("site: [")
    reply = reply_from_envelope(ask(order("census"), site))
    assert reply.code == "config-invalid" and reply.head.lines == 0 and reply.head.signature == ""
    assert not (site.parent / "state" / "journal.jsonl").exists()


def test_a_strangers_words_are_not_echoed(site):
    name = RoundName(study_digest=SECRET, phase=0, round=1, attempt=1)
    came = ask(order("census", name=name), site)
    assert came.fields["code"] == "order-refused" and came.fields["study-digest"] == ""
    assert SECRET not in (site.parent / "state" / "journal.jsonl").read_text()


def test_rounded_counts_leave_the_same_each_time_and_training_does_not_change(site, hospitals):
    exact = reply_from_envelope(ask(order("train", modules()), site))
    sizes = json.loads(reply_from_envelope(ask(order("census"), site)).facts)
    other = hospitals["gamma"]
    for path in (site, other):
        rewrite(path, count_rounding=10)
    for _ in range(2):
        found = reply_from_envelope(ask(order("train", modules(), measure=True), site))
        assert found.samples and all(count % 10 == 0 and count > 0 for count in found.samples.values())
        assert all(abs(found.samples[name] - exact.samples[name]) < 10 for name in found.samples)
        for name, module in exact.modules.items():
            assert found.modules[name].values.tobytes() == module.values.tobytes()
        people = found.sums["measured/n_patients"]
        assert people % 10 == 0 and people > 0
        told = json.loads(reply_from_envelope(ask(order("census"), site)).facts)
        for kind in ("patients", "recordings"):
            for name, count in sizes[kind].items():
                assert told[kind][name] % 10 == 0 and (told[kind][name] == 0) == (count == 0)


def test_text_is_bounded_like_arrays(site):
    rewrite(site, maximum_text_bytes=300)
    assert ask(order("train", modules()), site).fields["code"] == "disclosure-refused"
    assert "bytes of names and text" in (site.parent / "client.log").read_text()
