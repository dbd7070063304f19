"""Orders from a coordinator that lies: refused with a type before anything of them is kept."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.config.study import Study
from cardionets_core.errors import CardioNetsError, OrderRefusedError, PeerError
from cardionets_core.exchange.messages import (
    Envelope,
    Order,
    PackedModule,
    RoundName,
    order_from_envelope,
    order_to_envelope,
)
from cardionets_core.exchange.names import is_plain_name
from cardionets_core.exchange.npy import to_npy
from cardionets_core.exchange.tensors import Layout, module_digest
from cardionets_core.logs.reading import read_lines
from cardionets_core.models import build_module
from cardionets_core.tasks import make_task
from client.app import _log, read_order
from client.log import LOG
from client.modules import build_modules, pack_module
from simulation.local_grid import LocalGrid

PHASE = {"task": "ecg_mae", "rounds": 2, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
STUDY = Study.model_validate({"name": "hostile", "seed": 3, "phases": [PHASE]})
NAME = RoundName(study_digest=STUDY.digest, phase=0, round=1, attempt=1)
LAYOUT = Layout(names=("w", "b"), shapes=((2, 3), (2,)))
MODULE = PackedModule(layout=LAYOUT, values=np.arange(8, dtype=np.float32))
DIGEST = module_digest(MODULE.layout, MODULE.values)
ORDER = Order(
    kind="train", name=NAME, study_json=STUDY.to_json(), modules={"m": MODULE}, trained={"m": DIGEST},
    frozen={"f": DIGEST}, frozen_modules={"f": MODULE}, shared={"s": np.zeros(3)},
)  # fmt: skip

FIELDS = {
    "a path as a module's name": {"trained/../x": DIGEST},
    "an absolute path as a name": {"digest//etc/passwd": DIGEST},
    "a name that steers a terminal": {"trained/\x1b[2J": DIGEST},
    "half of a character in a name": {"trained/\ud800": DIGEST},
    "a field that nobody reads": {"more": 1},
    "a layout without its module": {"layout/module/n": LAYOUT.to_json()},
    "a digest that is a path": {"digest/f": "../../secret/key"},
    "a digest in capitals": {"trained/m": DIGEST.upper()},
    "a digest that is empty": {"digest/f": ""},
    "an unknown kind": {"kind": "delete"},
    "an unknown split": {"split": "train"},
    "a phase below 0": {"phase": -1},
    "a round beyond all": {"round": 2**62},
    "a truth value for a number": {"attempt": True},
    "a number for a text": {"study": 7},
    "a third truth value": {"measure": 2},
    "a format below 1": {"format": 0},
    "a format of before": {"format": 3},
    "a study digest that is none": {"study-digest": "x" * 64},
    "a study of deep nesting": {"study": "[" * 100_000},
    "a study of a number of many digits": {"study": '{"seed":' + "9" * 5000 + "}"},
    "a study that is not finite": {"study": '{"seed":1e999}'},
    "a study with a key twice": {"study": '{"name":"a","name":"b"}'},
    "a study of megabytes": {"study": " " * 1_000_001},
    "a head of lines below 0": {"head/lines": -1},
    "a head signed by half of a character": {"head/holder": "\ud800"},
    "a layout of deep nesting": {"layout/module/m": "[" * 100_000},
    "a layout of half a side": {"layout/module/m": '[["w",[2.5,3]],["b",[2]]]'},
    "a layout of a truth value": {"layout/module/m": '[["w",[2,true]],["b",[2]]]'},
    "a layout of digits in quotes": {"layout/module/m": '[["w",["2",3]],["b",[2]]]'},
    "a layout of words for pairs": {"layout/module/m": '["a1"]'},
    "a layout of an infinite side": {"layout/module/m": '[["w",[1e999]]]'},
    "a layout whose product overflows": {"layout/module/m": '[["w",[4294967296,4294967296,4294967296]]]'},
    "a layout of nothing beside much": {"layout/module/m": '[["w",[0,99999999999999999]]]'},
    "a layout of forty sides": {"layout/module/m": json.dumps([["w", [1] * 40]], separators=(",", ":"))},
    "a layout with a side below 0": {"layout/module/m": '[["w",[-2,-4]]]'},
    "a layout with half of a character": {"layout/module/m": '[["\\ud800",[8]]]'},
}


@pytest.mark.parametrize("changes", FIELDS.values(), ids=FIELDS)
def test_an_order_with_such_a_field_is_refused(changes):
    envelope = order_to_envelope(ORDER)
    with pytest.raises(OrderRefusedError):
        order_from_envelope(Envelope(fields={**envelope.fields, **changes}, arrays=envelope.arrays))


@pytest.mark.parametrize(
    "changes",
    [
        {"module/../x": MODULE.values},
        {"more": np.zeros(2)},
        {"shared/s": np.zeros(3, dtype=np.float32)},
        {"shared/s": np.zeros(3, dtype="<U3")},
        {"scale/module/m": np.ones(1, dtype=np.float32)},
        {"module/unnamed": MODULE.values},
    ],
)
def test_an_order_with_such_an_array_is_refused(changes):
    envelope = order_to_envelope(ORDER)
    with pytest.raises(OrderRefusedError):
        order_from_envelope(Envelope(fields=envelope.fields, arrays={**envelope.arrays, **changes}))


def test_what_is_valid_comes_back_as_it_was():
    envelope = order_to_envelope(ORDER)
    again = order_to_envelope(order_from_envelope(envelope))
    assert again.fields == envelope.fields and again.arrays.keys() == envelope.arrays.keys()


SCALARS = st.one_of(
    st.text(max_size=12),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.sampled_from(["../x", DIGEST]),
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(order_to_envelope(ORDER).fields)), SCALARS, min_size=1, max_size=3
    ),
    st.dictionaries(st.text(max_size=8), SCALARS, max_size=1),
)
@settings(max_examples=150)
def test_any_fields_are_refused_or_read_as_they_stand(changed, more):
    envelope = order_to_envelope(ORDER)
    fields = {**envelope.fields, **changed, **more}
    try:
        order = order_from_envelope(Envelope(fields=fields, arrays=envelope.arrays))
    except PeerError:
        return
    again = order_to_envelope(order).fields
    assert again == fields and all(type(again[name]) is type(value) for name, value in fields.items())


@given(st.text(max_size=30))
@settings(max_examples=200)
def test_a_plain_name_stays_in_its_folder_and_on_its_line(name):
    if is_plain_name(name):
        assert not name.startswith(("/", ".")) and ".." not in name.split("/")
        assert name.isascii() and name.isprintable() and " " not in name


def build(tmp_path, **changes):
    task = make_task("ecg_mae", {})
    modules = {
        name: pack_module(build_module(name, "nano", seed=1)) for name in ("ecg_encoder", "ecg_decoder")
    }
    trained = {name: module_digest(module.layout, module.values) for name, module in modules.items()}
    order = Order(kind="train", name=NAME, study_json=STUDY.to_json(), modules=modules, trained=trained)
    return build_modules(
        dataclasses.replace(order, **changes), task, preset="nano", state=tmp_path, device=torch.device("cpu")
    )


def test_modules_that_nobody_reads_or_that_do_not_fit_are_refused_and_not_kept(tmp_path):
    build(tmp_path / "good")
    assert list((tmp_path / "good").rglob("*.safetensors"))
    wrong = {"ecg_encoder": MODULE, "ecg_decoder": MODULE}
    for changes in (
        {"frozen_modules": {"../x": MODULE}},
        {"frozen_modules": {"cmr_encoder": MODULE}},
        {"modules": wrong, "trained": dict.fromkeys(wrong, DIGEST)},
        {"shared": {"moments": np.zeros(3)}},
        {"shared": {"strategy/taken": np.full(2, np.nan)}},
    ):
        with pytest.raises(OrderRefusedError):
            build(tmp_path / "bad", **changes)
    assert not list((tmp_path / "bad").rglob("*.safetensors"))


def message(fields, arrays):
    LocalGrid([])  # Flower builds messages inside of a task only
    records = {name: Array("float32", (1,), "numpy.ndarray", content) for name, content in arrays.items()}
    content = RecordDict({"fields": ConfigRecord(fields), "arrays": ArrayRecord(records)})
    return Message(content, dst_node_id=1000, message_type="train")


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=100)
def test_arrays_whose_bytes_are_wrong_end_as_a_refusal(content, place):
    envelope = order_to_envelope(ORDER)
    arrays = {name: to_npy(value) for name, value in envelope.arrays.items()}
    torn = arrays["module/m"][:place] + content + arrays["module/m"][place:]
    try:
        found = read_order(message(dict(envelope.fields), {**arrays, "module/m": torn}))
    except CardioNetsError:
        return
    assert found.modules["m"].values.tobytes() == MODULE.values.tobytes()


def test_a_strangers_words_neither_break_nor_fill_nor_steer_the_log(tmp_path):
    words = "no module \ud800 \x1b[2J\r here" + "x" * 10**6
    strange = RoundName(study_digest=words, phase=2**80, round=-1, attempt=1)
    order = dataclasses.replace(ORDER, name=strange, kind=words)
    for _ in range(3):
        _log(tmp_path / "site.yaml", OrderRefusedError(words, where=words), code="order-refused", order=order)
    content = (tmp_path / LOG).read_bytes()
    assert b"ud800" not in content and b"\x1b" not in content and b"xxx" not in content
    lines = list(read_lines(tmp_path / LOG))
    assert len(lines) == 3 and len(content) < 3_000
    assert (lines[0]["code"], lines[0]["withheld"]) == ("order-refused", 3)  # kind, study and phase
