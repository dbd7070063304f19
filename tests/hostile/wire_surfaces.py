"""What crosses the wire, for the fuzzer: each surface makes a valid artefact and gives a case to be tried.

A case raises a ``CardioNetsError`` or returns how its artefact was accepted, after it has looked at what was
accepted; an ``AssertionError`` says that something was taken for what it is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from wounds import mutate, pick, wounded_envelope, wounded_json

from cardionets_core.audit import journal
from cardionets_core.config.read import parse_document, read_text_mapping
from cardionets_core.config.site import SiteConfig
from cardionets_core.config.study import ReplyBounds, Study, study_from_json
from cardionets_core.errors import ReplyRefusedError
from cardionets_core.exchange.heads import PURPOSE, Head, signed_content, site_journal
from cardionets_core.exchange.messages import (
    MEASURED,
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
from cardionets_core.exchange.npy import from_npy, to_npy
from cardionets_core.exchange.secure import SecureStep
from cardionets_core.exchange.tensors import Layout, module_digest
from cardionets_core.tasks import make_task
from cardionets_core.tasks.expected_sums import ExpectedSums
from cardionets_core.trust.keys import make_key, public_der, public_openssh
from cardionets_core.trust.signatures import sign
from server.head_trust import HeadTrust
from server.heads import SiteHeads
from server.link.transfer import put_together
from server.members import Members
from server.records import to_records
from server.reply_checks import check_measured, check_reply, check_sender, check_values, measured_of
from server.round_store import RoundStore
from server.rounds import Answer, SiteLink

Case = Callable[[np.random.Generator], str]
LAYOUT = Layout(names=("weight", "bias"), shapes=((3, 4), (3,)))
PHASE = {"task": "probe", "rounds": 2, "options": {"bootstrap_replicates": 50}}
STEPS = {"task": "ecg_mae", "rounds": 2, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
STUDY = Study.model_validate({"name": "wire", "seed": 3, "phases": [STEPS, PHASE]})
NAME = RoundName(study_digest=STUDY.digest, phase=0, round=1, attempt=1)


def _module(seed: int = 0) -> PackedModule:
    values = np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)
    return PackedModule(layout=LAYOUT, values=values)


def an_order() -> Order:
    """An order with something of everything."""
    module = _module()
    digest = module_digest(module.layout, module.values)
    return Order(
        kind="train",
        name=NAME,
        study_json=STUDY.to_json(),
        modules={"ecg_encoder": module, "ecg_decoder": module},
        trained={"ecg_encoder": digest, "ecg_decoder": digest},
        frozen={"cmr_encoder": digest},
        frozen_modules={"cmr_encoder": module},
        shared={"moments/mean": np.zeros((2, 3))},
        measure=True,
    )


def a_reply(sums: dict[str, np.ndarray]) -> Reply:
    """A reply with something of everything."""
    return Reply(
        site="alpha",
        name=NAME,
        modules={"ecg_encoder": _module(1)},
        samples={"ecg_encoder": 40},
        sums={MEASURED + name: value for name, value in sums.items()},
        values={"loss": 0.5, "steps": 2.0, "part/main": 0.25, "role": 0.0},
        head=Head(lines=3, hash="ab" * 32, signature="00" * 20, holder="ssh"),
    )


def same(one: Envelope, other: Envelope) -> None:
    """Whether two envelopes hold the same."""
    for name, field in one.fields.items():
        # A whole number may come where a number is read.
        assert repr(field) in (repr(other.fields[name]), repr(_float(other.fields[name]))), name
    assert one.fields.keys() == other.fields.keys() and one.arrays.keys() == other.arrays.keys(), "names"
    for name, value in one.arrays.items():
        assert value.dtype == other.arrays[name].dtype and value.tobytes() == other.arrays[name].tobytes(), (
            name
        )


def _float(field: object) -> object:
    return float(field) if isinstance(field, int) else field


def orders(folder: Path) -> Case:
    """Envelopes of orders: read, and laid out again as they came."""
    valid = order_to_envelope(an_order())

    def case(rng: np.random.Generator) -> str:
        came = wounded_envelope(valid, rng)
        order = order_from_envelope(came)
        same(order_to_envelope(order), came)
        study_from_json(order.study_json, digest=order.name.study_digest)
        return "same"

    return case


def secure(folder: Path) -> Case:
    """Envelopes of a secure sum's steps, both ways: read, and laid out again as they came."""
    step = SecureStep(step="mask", part="train", message=b'{"fields":{},"kind":"shares"}')
    order = order_to_envelope(Order(kind="secure", name=NAME, study_json=STUDY.to_json(), secure=step))
    told = Reply(site="alpha", name=NAME, secure=step.message)
    masked = Reply(site="alpha", name=NAME, masked=np.arange(5, dtype=np.uint64))

    def case(rng: np.random.Generator) -> str:
        if rng.random() < 0.4:
            came = wounded_envelope(order, rng)
            same(order_to_envelope(order_from_envelope(came)), came)
        else:
            came = wounded_envelope(reply_to_envelope(pick((told, masked), rng)), rng)
            same(reply_to_envelope(reply_from_envelope(came)), came)
        return "same"

    return case


def replies(folder: Path) -> Case:
    """Envelopes of replies: read, judged as by the collector, stored, and read from the store."""
    task = make_task("probe", {"bootstrap_replicates": 50})
    expected = ExpectedSums("nano").of_metrics(task)
    sums = {name: np.full(shape, 7.0) for name, shape in expected.items()}
    valid, order = reply_to_envelope(a_reply(sums)), an_order()

    def case(rng: np.random.Generator) -> str:
        came = wounded_envelope(valid, rng)
        reply = reply_from_envelope(came)
        same(reply_to_envelope(reply), came)
        check_sender(reply, order=order, site="alpha")
        check_values(reply, site="alpha")
        rest, measured = measured_of(reply)
        layouts = {"ecg_encoder": LAYOUT}
        check_reply(rest, order=order, site="alpha", layouts=layouts, bounds=ReplyBounds())
        if rest.sums:
            raise ReplyRefusedError("sums that nobody asked for")
        if not reply.measure_code:
            check_measured(measured, site="alpha", expected=expected, task=task)
        store = RoundStore(folder / "round")
        store.accept(reply)
        assert store.sites() == ["alpha"] and sorted(p.name for p in folder.iterdir()) == ["round"]
        assert {n: v.tobytes() for n, v in store.sums("alpha").items()} == {
            n: v.tobytes() for n, v in reply.sums.items()
        }
        json.dumps(store.facts("alpha"), allow_nan=False)
        return "stored"

    return case


def censuses(folder: Path) -> Case:
    """What sites tell of themselves: taken into the members' facts, which must be fit for a report."""
    facts = {
        "role": "member",
        "holds": ["ab" * 32],
        "versions": {"cardionets": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0+cpu"},
        "patients": {"train": 30, "validation": 5, "test": 5},
        "recordings": {"ecg": 40, "cine": 0, "pair": 0},
        "refusals": {"ecg-flat": 2},
    }
    name = RoundName(study_digest=STUDY.digest, phase=0, round=0, attempt=1)
    order = Order(kind="census", name=name, study_json=STUDY.to_json())

    def case(rng: np.random.Generator) -> str:
        fields = {
            **reply_to_envelope(Reply(site="alpha", name=name)).fields,
            "facts": wounded_json(facts, rng),
        }
        reply = reply_from_envelope(Envelope(fields=fields, arrays={}))
        members = Members()
        site, code, _ = members.enrol(
            Answer(node=7, reply=reply, code="", nbytes=0, seconds=0.1), order, task="ecg_mae"
        )
        assert site == "alpha"
        text = json.dumps(members.facts, allow_nan=False)
        assert len(text) < 10_000 and text.isascii() and "\\u" not in text, "a stranger's words in a report"
        if code:
            raise ReplyRefusedError(code)
        return "enrolled"

    return case


def heads(folder: Path) -> Case:
    """Heads of journals with their keys and signatures, as a site without registration sends them."""
    key, bare = make_key(), Head(lines=3, hash="ab" * 32)
    signature = sign(key, signed_content(bare, journal=site_journal("alpha")), purpose=PURPOSE).hex()
    forms = [public_openssh(key.public_key()), public_der(key.public_key()).decode("latin-1")]

    def case(rng: np.random.Generator) -> str:
        holder, signed = pick(forms, rng), signature
        if rng.random() < 0.8:
            holder = mutate(holder.encode("latin-1"), rng).decode("latin-1")
        if rng.random() < 0.5:
            signed = mutate(signed.encode(), rng).decode("latin-1")
        head = {"head/lines": 3, "head/hash": bare.hash, "head/signature": signed, "head/holder": holder}
        fields = {**reply_to_envelope(Reply(site="alpha", name=NAME)).fields, **head}
        reply = reply_from_envelope(Envelope(fields=fields, arrays={}))
        path = folder / "journal.jsonl"
        path.unlink(missing_ok=True)
        taken = SiteHeads(
            path,
            lambda event, facts: journal.append(path, event, facts) and None,
            study_digest="",
            trust=HeadTrust(),
        )
        taken.take(reply, an_order(), "alpha")
        assert journal.verify(path) >= 1
        return "taken"

    return case


def arrays(folder: Path) -> Case:
    """Bytes of arrays."""
    shapes = ((), (0,), (3,), (2, 3), (0, 5), (1, 2, 3))
    kinds = ("<f4", "<f8", "|i1", "<u2", "|b1")

    def case(rng: np.random.Generator) -> str:
        content = to_npy(np.zeros(pick(shapes, rng), dtype=pick(kinds, rng)))
        found = from_npy(mutate(content, rng))
        assert found.dtype.kind in "biuf" and not found.flags.writeable
        again = from_npy(to_npy(found))
        assert again.shape == found.shape and again.tobytes() == found.tobytes()
        return "read"

    return case


def layouts(folder: Path) -> Case:
    """Texts of layouts."""
    rows = json.loads(LAYOUT.to_json())

    def case(rng: np.random.Generator) -> str:
        text = wounded_json(rows, rng)
        if rng.random() < 0.5:
            text = text.replace(" ", "")
        layout = Layout.from_json(text)
        assert layout.to_json() == text and layout.size < 2**60
        np.zeros(0, dtype=np.float32).reshape(
            0, *(side for side in layout.shapes[0]) if layout.shapes else ()
        )
        return "read"

    return case


def transfers(folder: Path) -> Case:
    """Objects of a message as a SuperNode pushed them, put together and read."""
    for name in ("run_id", "node_id", "task_id"):
        setattr(TaskIdentity, name, 7)
    records = to_records(reply_to_envelope(a_reply({"n_rows": np.zeros(3), "more": np.arange(4.0)})))
    message = Message(records, dst_node_id=9, message_type="train")
    message.metadata.__dict__["_message_id"] = root = message.object_id
    valid = {name: found.deflate() for name, found in get_all_nested_objects(message).items()}

    def case(rng: np.random.Generator) -> str:
        contents = dict(valid)
        for _ in range(int(rng.integers(1, 3))):
            name = pick(contents, rng)
            kind = int(rng.integers(0, 4))
            if kind == 0:
                del contents[name]
                break
            head, _, body = valid[name].partition(b"\0")
            if kind == 1:
                contents[name] = mutate(contents[name], rng)
            elif kind == 2 and body.startswith(b"{"):
                contents[name] = head + b"\0" + wounded_json(json.loads(body), rng).encode("utf-8", "replace")
            else:
                contents[name] = contents[pick(contents, rng)]
        found = put_together(inflate_object_from_contents, root, contents)
        link = SiteLink(SimpleNamespace(pull_messages=lambda numbers: [found]))  # type: ignore[arg-type]
        answer = link.pull("m1", node=9, seconds=1.0)
        assert answer is not None and (answer.reply is None) == bool(answer.code)
        return answer.code or "read"

    return case


def documents(folder: Path) -> Case:
    """YAML of studies and sites."""
    site = {
        "site": "alpha",
        "source": {"kind": "mimic_iv_ecg", "root": "records"},
        "policy": {"phases": ["ecg_mae"]},
    }
    valid = {Study: json.loads(STUDY.to_json()), SiteConfig: site}
    tags = ("!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!map ",
            "&a ", "*a ",
            "!!python/name:os.system ", "? ", "<<: ", "- ", "2020-13-45 ", "0x", "1:60:", "\x00",
            "{[a]: 1}")  # fmt: skip

    def case(rng: np.random.Generator) -> str:
        model = pick(valid, rng)
        text = wounded_json(valid[model], rng)
        if rng.random() < 0.5:
            place = int(rng.integers(0, len(text) + 1))
            text = text[:place] + pick(tags, rng) + text[place:]
        content = read_text_mapping(mutate(text.encode("utf-8", "replace"), rng) if rng.random() < 0.3 else
                                    text.encode("utf-8", "replace"), where="document")  # fmt: skip
        found = parse_document(model, content, where="document")
        if isinstance(found, Study):
            assert study_from_json(found.to_json(), digest=found.digest) == found
        return "accepted"

    return case


SURFACES: dict[str, Callable[[Path], Case]] = {
    "orders": orders, "replies": replies, "censuses": censuses, "heads": heads, "arrays": arrays,
    "layouts": layouts, "secure": secure, "transfers": transfers, "documents": documents,
}  # fmt: skip
