"""Files of both sides that another hand wrote: torn by name, passed over, or the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cardionets_core.data.pack import packed_digest
from cardionets_core.data.store import LOG, Store
from cardionets_core.data.store_log import Entry, log_line, parse_line, read_log
from cardionets_core.errors import CardioNetsError, CheckpointError, FrozenModuleMissingError
from cardionets_core.exchange.messages import Order, PackedModule, Reply, RoundName
from cardionets_core.exchange.tensors import Layout
from cardionets_core.tasks.kept import Kept
from client.controls import Controls
from client.memory import DiskMemory
from client.modules import with_held
from client.replies import FACTS, ReplyStore
from server.bundle.build import packaged
from server.checkpoints import STATE, CheckpointStore
from server.given_model import given_modules
from server.round_folder import RoundFolder
from server.round_store import REPLY, RoundStore

NAME = RoundName(study_digest="ab" * 32, phase=0, round=1, attempt=1)
LAYOUT = Layout(names=("w",), shapes=((4,),))
MODULE = PackedModule(layout=LAYOUT, values=np.arange(4, dtype=np.float32))
SITE = {"site": "here", "key": "k", "chain": "c", "unpublish": lambda: None}
DEEP = "[" * 100_000


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", **SITE) as opened:
        arrays = {"ecg": np.ones((12, 40), dtype="<i2")}
        entry = Entry(key="a", kind="ecg", stamp="s", content="c", digest=packed_digest(arrays))
        opened.put(entry, arrays)
    return tmp_path / "store"


def rewritten(store, number, **changes):
    """One line of the log with other values and a right checksum."""
    lines = (store / LOG).read_bytes().splitlines(keepends=True)
    content = parse_line(lines[number])
    content.pop("sum", None)
    lines[number] = log_line({**content, **changes})
    (store / LOG).write_bytes(b"".join(lines))


NAMES = {part: f"{part}-1.bin" for part in ("ecg", "cines", "signatures")}


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {**NAMES, "ecg": "../../beside.bin"}},
        {"files": {**NAMES, "ecg": "/tmp/x.bin"}},
        {"files": {**NAMES, "ecg": "log.jsonl"}},
        {"files": {**NAMES, "ecg": ".."}},
        {"files": []},
        {"ends": {"ecg": -1, "cines": 0, "signatures": 0}},
        {"ends": {"ecg": 2**62, "cines": 0, "signatures": 0}},
        {"ends": {"ecg": "0", "cines": 0, "signatures": 0}},
        {"ends": {}},
        {"site": 3},
    ],
)
def test_a_log_that_names_files_elsewhere_is_begun_anew(store, changes):
    """Its files are cut and overwritten: a name with a way out would have cut somebody else's."""
    beside = store.parent.parent / "beside.bin"
    beside.write_bytes(b"somebody else's")
    rewritten(store, 0, **changes)
    try:
        with Store(store, **SITE) as opened:
            assert not opened.entries
    except CardioNetsError as refused:
        assert refused.what
    assert beside.read_bytes() == b"somebody else's"
    beside.unlink()


@pytest.mark.parametrize(
    "changes",
    [
        {"places": {"ecg": [0, 2**62]}}, {"places": {"ecg": [-24, 960]}}, {"places": {"ecg": ["0", 960]}},
        {"places": {"ecg": [0]}}, {"places": [["ecg", 0, 960]]}, {"places": {"ecg": [2**60, 960]}},
        {"key": ["a"]}, {"digest": 3}, {"facts": {"fs_hz": [1]}}, {"facts": 5}, {"flags": 7}, {"reason": {}},
    ],
)  # fmt: skip
def test_an_entry_that_is_none_makes_the_log_untrusted(store, changes):
    rewritten(store, 1, **changes)
    with Store(store, **SITE) as opened:
        assert not opened.entries
    assert sum(path.stat().st_size for path in store.iterdir()) < 10_000


@given(st.integers(0, 700), st.binary(min_size=1, max_size=5))
@settings(max_examples=60)
def test_a_wounded_log_is_opened_or_begun_anew(tmp_path_factory, place, wound):
    folder = tmp_path_factory.mktemp("store")
    with Store(folder, **SITE) as opened:
        opened.put(Entry(key="b", kind="ecg", stamp="s", content="c", reason="ecg-flat"))
    content = (folder / LOG).read_bytes()
    (folder / LOG).write_bytes(content[:place] + wound + content[place + len(wound) :])
    with Store(folder, **SITE) as opened:
        assert set(opened.entries) <= {"b"}
    read_log(folder / LOG)


def checkpoint(folder):
    (folder / "work").mkdir(parents=True)
    MODULE.values.tofile(folder / "work" / "m.f32")
    store = CheckpointStore(folder / "run", study_digest=NAME.study_digest)
    return store.write(
        phase=0, round_number=1, layouts={"m": LAYOUT}, files={"m": folder / "work" / "m.f32"}, history=[],
        previous=None,
    ).folder  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"digests": []}, {"digests": {"../m": "x"}}, {"digests": {"m": 3}}, {"layouts": []},
        {"layouts": {"m": 3}},
        {"layouts": {"m": DEEP}}, {"layouts": {"m": '[["w",[1e999]]]'}}, {"layouts": {}}, {"history": 3},
        {"history": [3]}, {"phase": "0"}, {"round": -1}, {"phase": True},
        {"digests": {"m": "x", "/etc/x": "y"}},
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_hand_is_torn(tmp_path, changes):
    folder = checkpoint(tmp_path)
    state = json.loads((folder / STATE).read_text())
    (folder / STATE).write_text(json.dumps({**state, **changes}))
    with pytest.raises(CheckpointError):
        CheckpointStore(folder.parent, study_digest=NAME.study_digest).latest()


@pytest.mark.parametrize("text", [DEEP, "[]", "3", "", "9" * 5000, '{"study_digest":1,"study_digest":2}'])
def test_a_state_that_is_no_object_is_torn(tmp_path, text):
    folder = checkpoint(tmp_path)
    (folder / STATE).write_text(text)
    with pytest.raises(CheckpointError):
        CheckpointStore(folder.parent, study_digest=NAME.study_digest).latest()
    (folder / STATE).unlink()
    os.mkfifo(folder / STATE)
    with pytest.raises(CheckpointError):
        CheckpointStore(folder.parent, study_digest=NAME.study_digest).latest()


def a_reply(**changes):
    content = {"site": "alpha", "name": NAME, "modules": {"m": MODULE}, "samples": {"m": 4}}
    return Reply(**{**content, "sums": {"n": np.ones(2)}, "values": {"loss": 1.0}, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"files": []}, {"files": {"../../x": [0, ""]}}, {"files": {"m.f32": 3}},
        {"files": {"m.f32": []}}, {"samples": {"m": -1}},
        {"samples": {"../m": 4}}, {"sizes": {"m": 10**9}}, {"sizes": {"n": 4}}, {"sizes": {}},
        {"files": {}, "sizes": {}}, {"weights": {}}, {"weights": None},
        {"values": {"loss": "x"}}, {"values": []}, {"site": "beta"}, {"bytes": "1"}, {"measure_code": 3},
    ],
)  # fmt: skip
def test_a_stored_reply_of_another_hand_is_as_if_it_had_not_come(tmp_path, changes):
    RoundStore(tmp_path).accept(a_reply())
    facts = json.loads((tmp_path / "alpha" / REPLY).read_text())
    (tmp_path / "alpha" / REPLY).write_text(json.dumps({**facts, **changes}))
    with pytest.raises(CheckpointError):
        RoundStore.facts(_bare(tmp_path), "alpha")
    assert RoundStore(tmp_path).sites() == []


def _bare(folder):
    """A store that was opened before its files were rewritten."""
    found = object.__new__(RoundStore)
    found.folder = folder
    return found


def test_sums_that_were_rewritten_with_their_digest_are_torn(tmp_path):
    RoundStore(tmp_path).accept(a_reply())
    path = tmp_path / "alpha" / "sums" / "n.npy"
    path.write_bytes(path.read_bytes().replace(b"(2,)", b"(9,)"))
    with pytest.raises(CheckpointError):
        _bare(tmp_path).sums("alpha")


@pytest.mark.parametrize("text", [DEEP, "[]", "9" * 5000, "{"])
def test_facts_of_a_round_that_are_none_begin_it_anew(tmp_path, text):
    RoundFolder(tmp_path, NAME, start_digest="x").note({"draw": ["alpha"]})
    (tmp_path / "00-00001" / "round.json").write_text(text)
    assert RoundFolder(tmp_path, NAME, start_digest="x").get("draw", None) is None


@pytest.mark.parametrize(
    "changes",
    [{"fields": []}, {"fields": {"x": 1}}, {"arrays": 3}, {"arrays": ["../x"]}, {"patients": 1e999},
     {"patients": []},
     {"measured": "many"}, {"bytes": -1}],
)  # fmt: skip
def test_a_kept_reply_of_another_hand_is_made_anew(tmp_path, changes):
    order = Order(kind="train", name=NAME, study_json="{}")
    store = ReplyStore(tmp_path, maximum_bytes=10**6)
    store.keep(order, a_reply(sums={}), patients=9, measured=None)
    assert store.find(order) is not None
    (path,) = tmp_path.rglob(FACTS)
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, **changes}))
    assert store.find(order) is None
    path.write_text(DEEP)
    assert store.find(order) is None
    for name in ("notes", ".DS_Store", "0x"):
        (path.parent.parent / name).write_text("another file")
    store.keep(dataclasses.replace(order, kind="evaluate"), a_reply(), patients=9, measured=None)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, (2**62).to_bytes(8, "little") + b"{}", b"\x02" + bytes(7) + b"[]"]
)
def test_states_that_are_no_safetensors_are_torn_by_name(tmp_path, content):
    memory = DiskMemory(tmp_path, study_digest="ab" * 32, phase=0)
    memory.keep(1, {"m/w": torch.ones(4)})
    (path,) = tmp_path.rglob("*.safetensors")
    path.with_name("notes.safetensors").write_bytes(content)  # ``int("notes")`` ended the round
    assert memory.recall(2) is not None
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        memory.recall(2)


def test_a_control_variate_of_another_type_or_shape_is_told(tmp_path):
    order = Order(
        kind="train", name=dataclasses.replace(NAME, round=2), study_json="{}",
        modules={"m": MODULE, "m.control": MODULE},
    )  # fmt: skip
    for state in (
        {"m/w": torch.ones(5)},
        {"m/w": torch.ones(4, dtype=torch.bfloat16)},
        {"m/v": torch.ones(4)},
    ):
        memory = DiskMemory(
            tmp_path / "control", study_digest=NAME.study_digest, phase=0, counts=lambda number: True
        )
        memory.keep(1, state)
        from cardionets_core.training.controls import mark

        taken = {"strategy/taken": np.array([mark("alpha", 0, 1)])}
        with pytest.raises(CheckpointError):
            Controls(tmp_path, site="alpha", order=dataclasses.replace(order, shared=taken), trains=("m",))


def test_a_held_module_of_a_type_that_numpy_lacks_is_asked_for_again(tmp_path):
    folder = tmp_path / "trained" / "m"
    folder.mkdir(parents=True)
    digest = "cd" * 32
    order = Order(kind="train", name=NAME, study_json="{}", trained={"m": digest})
    for layout in (LAYOUT.to_json(), DEEP, '[["v",[4]]]'):
        save_file(
            {"w": torch.ones(4, dtype=torch.bfloat16)}, folder / f"{digest}.safetensors", {"layout": layout}
        )
        with pytest.raises(FrozenModuleMissingError):
            with_held(order, state=tmp_path)
        assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "\x00", "nobody", ""])
def test_given_weights_are_looked_for_under_names_of_ours_alone(tmp_path, name):
    with pytest.raises(CardioNetsError):
        given_modules({name: "ab" * 32}, tmp_path, preset="nano")


def test_given_weights_of_a_type_that_numpy_lacks_are_refused(tmp_path):
    save_file({"w": torch.ones(4, dtype=torch.bfloat16)}, tmp_path / "align_scale.safetensors")
    with pytest.raises(CardioNetsError):
        given_modules({"align_scale": "ab" * 32}, tmp_path, preset="nano")


def test_a_derived_array_that_is_none_is_torn(tmp_path):
    kept = Kept(tmp_path, cohort="c", digests={"m": "d"})
    ask = lambda: kept.of("features", {"m": torch.nn.Linear(1, 1)}, ["m"], lambda: {"x": torch.ones(2)})  # noqa: E731
    ask()
    (path,) = tmp_path.iterdir()
    for content in (b"", (2**40).to_bytes(8, "little"), hashlib.sha256(b"").digest() * 9):
        path.write_bytes(content)
        with pytest.raises(CardioNetsError):
            ask()


@pytest.mark.parametrize("text", [DEEP, "[]", "{}", '{"files":[],"sha256":""}', "9" * 5000])
def test_what_is_known_of_the_last_package_is_read_or_torn(tmp_path, text):
    from cardionets_core.config.workspace import Workspace

    workspace = Workspace(tmp_path)
    workspace.code.mkdir()
    (workspace.code / "package.json").write_text(text)
    with pytest.raises(CheckpointError):
        packaged(workspace)
