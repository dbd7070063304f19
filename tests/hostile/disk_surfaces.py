"""What lies on the disks of both sides, wounded and signed anew, for the fuzzer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from wire_surfaces import LAYOUT, NAME, STUDY, _module
from wounds import mutate, pick, wounded_json

from cardionets_core.data.pack import packed_digest
from cardionets_core.data.store import LOG, Store, file_of
from cardionets_core.data.store_log import Entry, log_line, parse_line
from cardionets_core.errors import CheckpointError
from cardionets_core.exchange.messages import Order, Reply
from cardionets_core.exchange.tensors import layout_of, model_digest, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.tasks.kept import Kept
from cardionets_core.training.model_folder import MODEL, read_model_folder
from cardionets_core.training.tensors import export_tensors
from client.memory import DiskMemory
from client.modules import TRAINED, with_held
from client.replies import ReplyStore
from server.checkpoints import STATE, CheckpointStore
from server.given_model import given_modules
from server.published_file import read_published_file
from server.round_folder import RoundFolder

Case = Callable[[np.random.Generator], str]
NETWORK = "align_scale"
"""A small module, whose files are quickly written."""


def _restored(kept: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)


def _wound_file(path: Path, rng: np.random.Generator) -> None:
    """A JSON file in its values, any other in its bytes."""
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_bytes(wounded_json(json.loads(path.read_text()), rng).encode("utf-8", "replace"))
    else:
        path.write_bytes(mutate(path.read_bytes(), rng))


def _wound_any(folder: Path, rng: np.random.Generator) -> None:
    _wound_file(pick(sorted(path for path in folder.rglob("*") if path.is_file()), rng), rng)


def store_logs(folder: Path) -> Case:
    """The store of a site's cache; half of the wounded lines have the right checksum."""
    options = {"site": "alpha", "key": "k", "chain": "c", "unpublish": lambda: None}
    kept, beside = folder / "kept", folder / "beside.bin"
    beside.write_bytes(b"somebody else's")
    with Store(kept, **options) as store:  # type: ignore[arg-type]
        for number in range(4):
            arrays = {"ecg": np.full((12, 40), number + 1, dtype="<i2"), "signature": np.ones(8, dtype="<f4")}
            entry = Entry(key=f"r{number}", kind="ecg", stamp="s", content="x", digest=packed_digest(arrays))
            store.put(dataclasses.replace(entry, facts={"fs_hz": 500.0}, flags=("lead-derived",)), arrays)

    def case(rng: np.random.Generator) -> str:
        _restored(kept, folder / "store")
        path = folder / "store" / LOG
        lines = path.read_bytes().splitlines(keepends=True)
        if rng.random() < 0.7:
            place = int(rng.integers(0, len(lines)))
            content = parse_line(lines[place])
            try:
                lines[place] = log_line(json.loads(wounded_json(content, rng)))
            except (ValueError, RecursionError, TypeError):
                lines[place] = wounded_json(content, rng).encode("utf-8", "replace") + b"\n"
            path.write_bytes(b"".join(lines))
        else:
            _wound_any(folder / "store", rng)
        with Store(folder / "store", **options) as store:  # type: ignore[arg-type]
            store.settle()
            for entry in store.entries.values():
                for name in entry.places:
                    store.read(entry, name, "|u1")
                    assert file_of(name) in store.files
        assert beside.read_bytes() == b"somebody else's"
        assert {each.name for each in folder.iterdir()} == {"kept", "store", "beside.bin"}
        return "opened"

    return case


def checkpoints(folder: Path) -> Case:
    """Checkpoints of a run folder: one that is read holds the model that was written, or is signed anew."""
    module = _module()
    (folder / "work").mkdir()
    module.values.tofile(folder / "work" / "m.f32")
    store = CheckpointStore(folder / "kept", study_digest=STUDY.digest)
    written = store.write(
        phase=0, round_number=1, layouts={"m": LAYOUT}, files={"m": folder / "work" / "m.f32"},
        history=[{"phase": 0, "round": 1, "sites": []}], previous=None,
    )  # fmt: skip

    def case(rng: np.random.Generator) -> str:
        _restored(folder / "kept", folder / "run")
        part = pick((STATE, "m.f32"), rng)
        _wound_file(folder / "run" / written.folder.name / part, rng)
        found = CheckpointStore(folder / "run", study_digest=STUDY.digest).latest()
        assert found is not None
        for name in found.digests:
            assert found.path(name).parent == found.folder
            found.tensors(name)
            assert module_digest(found.layouts[name], found.values(name)) == found.digests[name]
        assert len(json.dumps(found.history)) >= 2 and found.phase >= 0 and found.round >= 0
        return "read"

    return case


def rounds(folder: Path) -> Case:
    """The folder of a round: a stored reply is whole, or it is not there."""
    name = dataclasses.replace(NAME, attempt=1)
    opened = RoundFolder(folder / "kept", name, start_digest="ab" * 32)
    reply = Reply(
        site="alpha", name=name, modules={"m": _module()}, samples={"m": 40},
        sums={"measured/n": np.ones(3)}, values={"loss": 0.5, "role": 0.0},
    )  # fmt: skip
    opened.store("train").accept(reply)
    opened.note({"draw": ["alpha"], "attempt_train": 1})

    def case(rng: np.random.Generator) -> str:
        _restored(folder / "kept", folder / "rounds")
        _wound_any(folder / "rounds", rng)
        store = RoundFolder(folder / "rounds", name, start_digest="ab" * 32).store("train")
        if store.sites() == []:
            return "absent"
        assert store.sites() == ["alpha"]
        store.facts("alpha")
        store.sums("alpha")
        for stored in store.module("m"):
            assert stored.path.is_relative_to(store.folder) and stored.samples >= 0
            assert stored.path.stat().st_size == 4 * stored.size
        return "whole"

    return case


def kept_replies(folder: Path) -> Case:
    """Replies that a site keeps: the same, or none."""
    order = Order(kind="train", name=NAME, study_json=STUDY.to_json())
    reply = Reply(
        site="alpha", name=NAME, modules={"m": _module()}, samples={"m": 40},
        sums={"n": np.ones(3)}, values={"loss": 0.5},
    )  # fmt: skip
    ReplyStore(folder / "kept", maximum_bytes=10**9).keep(order, reply, patients=30, measured=None)

    def case(rng: np.random.Generator) -> str:
        _restored(folder / "kept", folder / "replies")
        _wound_any(folder / "replies", rng)
        store = ReplyStore(folder / "replies", maximum_bytes=10**9)
        found = store.find(order)
        (folder / "replies" / "notes").mkdir()
        store.keep(
            dataclasses.replace(order, name=dataclasses.replace(NAME, round=2)), reply, patients=1, measured=1
        )
        if found is None:
            return "absent"
        # What was signed anew goes through the gate again before it leaves.
        assert isinstance(found.patients, int) and found.reply.name == NAME
        return "found"

    return case


def memories(folder: Path) -> Case:
    """What lasts at a site from round to round."""
    memory = DiskMemory(folder / "kept", study_digest="ab" * 32, phase=0)
    memory.keep(1, {"m/weight": torch.ones(3, 4), "m/bias": torch.zeros(3)})

    def case(rng: np.random.Generator) -> str:
        _restored(folder / "kept", folder / "state")
        _wound_any(folder / "state", rng)
        inner = next(path for path in (folder / "state").iterdir())
        (inner / pick(("notes.safetensors", "x", "-1.safetensors", "00001.part"), rng)).write_bytes(b"")
        memory = DiskMemory(folder / "state", study_digest="ab" * 32, phase=0)
        found = memory.recall(2)
        memory.keep(3, {"m/bias": torch.zeros(3)})
        assert found is None or all(isinstance(value, torch.Tensor) for value in found.values())
        return "recalled"

    return case


def held_modules(folder: Path) -> Case:
    """Modules that lie on a site by their digests: whole, or asked for again."""
    module = _module()
    digest = module_digest(module.layout, module.values)
    order = Order(kind="train", name=NAME, study_json=STUDY.to_json(), trained={"m": digest})
    from client.modules import _keep  # how a site keeps one

    tensors = {"weight": module.values[:12].reshape(3, 4), "bias": module.values[12:]}
    _keep(tensors, digest, folder / "kept" / TRAINED / "m")

    def case(rng: np.random.Generator) -> str:
        _restored(folder / "kept", folder / "state")
        _wound_any(folder / "state", rng)
        found = with_held(order, state=folder / "state").modules["m"]
        assert found.values.tobytes() == module.values.tobytes()
        return "same"

    return case


def derived(folder: Path) -> Case:
    """Arrays that follow from a cohort and modules."""
    network = torch.nn.Linear(2, 2)
    made = {"features": torch.ones(4, 2)}

    def ask(where: Path) -> dict[str, torch.Tensor]:
        kept = Kept(where, cohort="c" * 64, digests={"m": "d" * 64})
        return kept.of("features", {"m": network}, ["m"], lambda: made)

    ask(folder / "kept")

    def case(rng: np.random.Generator) -> str:
        _restored(folder / "kept", folder / "derived")
        _wound_any(folder / "derived", rng)
        assert all(isinstance(value, torch.Tensor) for value in ask(folder / "derived").values())
        return "read"

    return case


def models(folder: Path) -> Case:
    """Folders of models, half of them signed anew: what is loaded has the digest that stands there."""
    tensors = export_tensors(build_module(NETWORK, "nano", seed=0))
    digest = module_digest(layout_of(tensors), pack(tensors))
    (folder / "kept").mkdir()
    file = folder / "kept" / f"{NETWORK}.safetensors"
    save_file({name: torch.from_numpy(value) for name, value in tensors.items()}, file)
    facts = {
        "schema_version": 3, "preset": "nano", "study": {"name": "s", "digest": "ab" * 32},
        "model_digest": model_digest({NETWORK: digest}), "drawing": {}, "evaluation": [],
        "modules": {NETWORK: {"digest": digest, "file_sha256": _sha256(file)}},
    }  # fmt: skip
    (folder / "kept" / MODEL).write_text(json.dumps(facts))

    def case(rng: np.random.Generator) -> str:
        _restored(folder / "kept", folder / "model")
        wounded = folder / "model" / pick((MODEL, file.name), rng)
        wounded.write_bytes(mutate(wounded.read_bytes(), rng))
        if rng.random() < 0.5 and wounded.name == file.name:
            named = {**facts, "modules": {NETWORK: {"digest": digest, "file_sha256": _sha256(wounded)}}}
            (folder / "model" / MODEL).write_text(json.dumps(named))
        stored = read_model_folder(folder / "model")
        for name in stored.digests:
            stored.load(name, device=torch.device("cpu"))
        return "loaded"

    return case


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def given(folder: Path) -> Case:
    """Weights that a study starts from, and published checkpoints."""
    tensors = export_tensors(build_module(NETWORK, "nano", seed=0))
    digest = module_digest(layout_of(tensors), pack(tensors))
    path = folder / f"{NETWORK}.safetensors"
    save_file({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    safe = path.read_bytes()
    torch.save({"model": {name: torch.from_numpy(value) for name, value in tensors.items()}}, folder / "x.pt")
    pickled = (folder / "x.pt").read_bytes()

    def case(rng: np.random.Generator) -> str:
        kind = int(rng.integers(0, 3))
        if kind == 0:
            path.write_bytes(mutate(safe, rng))
            name = NETWORK if rng.random() < 0.8 else pick(("../x", "", "a/b", "\x00", "nobody"), rng)
            found = given_modules({name: digest}, folder, preset="nano")[name]
            assert module_digest(layout_of(found), pack(found)) == digest
            return "same"
        (folder / "y.pt").write_bytes(mutate(safe if kind == 1 else pickled, rng))
        found = read_published_file(folder / "y.pt", max_bytes=10**7).tensors
        if not all(isinstance(value, torch.Tensor) for value in found.values()):
            raise CheckpointError("not tensors")
        return "read"

    return case


SURFACES: dict[str, Callable[[Path], Case]] = {
    "store-logs": store_logs, "checkpoints": checkpoints, "rounds": rounds, "kept-replies": kept_replies,
    "memories": memories, "held-modules": held_modules, "derived": derived, "models": models, "given": given,
}  # fmt: skip
