"""A site answers an order once: the stored reply, byte for byte, whatever happens in between."""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from flwr.app import Message

from cardionets_core.audit import journal
from cardionets_core.config.study import Study
from cardionets_core.errors import DisclosureRefusedError, FrozenModuleMissingError, PhaseNotPermittedError
from cardionets_core.exchange.messages import (
    Order,
    PackedModule,
    Reply,
    RoundName,
    order_to_envelope,
    reply_to_envelope,
)
from cardionets_core.exchange.tensors import Layout, layout_of, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.training.tensors import export_tensors
from client.app import make_app
from client.modules import TRAINED_KEPT, held_digests
from client.replies import ReplyStore, order_digest
from client.round import answer
from server.records import from_records, to_records
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid


class Killed(BaseException):
    """The process is gone."""


def study(rounds=4) -> Study:
    phase = {"task": "ecg_mae", "rounds": rounds, "local_steps": 2, "batch_size": 4}
    persistent = {"lr": 1e-3, "state": "persist"}
    return Study.model_validate({"name": "once", "seed": 3, "phases": [{**phase, "optimiser": persistent}]})


def packed(name, seed=1):
    tensors = export_tensors(build_module(name, "nano", seed=seed))
    return PackedModule(layout=layout_of(tensors), values=pack(tensors))


def train_order(number=1, attempt=1, seed=1, *, sent=("ecg_encoder", "ecg_decoder"), **changes):
    modules = {name: packed(name, seed) for name in ("ecg_encoder", "ecg_decoder")}
    content = {
        "kind": "train",
        "name": RoundName(study_digest=study().digest, phase=0, round=number, attempt=attempt),
        "study_json": study().to_json(),
        "modules": {name: modules[name] for name in sent},
        "trained": {name: module_digest(m.layout, m.values) for name, m in modules.items()},
    }
    return Order(**{**content, **changes})


@pytest.fixture
def site(consortium, tmp_path):
    folder = tmp_path / "alpha"
    shutil.copytree(consortium.paths["alpha"].parent, folder, copy_function=shutil.copy2)
    shutil.rmtree(folder / "state", ignore_errors=True)
    return folder / "site.yaml"


def wire(reply: Reply) -> str:
    """The whole content of a reply as one digest, without the head of the journal's line of this time."""
    envelope = reply_to_envelope(reply)
    fields = {name: value for name, value in envelope.fields.items() if not name.startswith("head/")}
    state = hashlib.sha256(json.dumps(fields).encode())
    for name, value in envelope.arrays.items():
        state.update(f"{name}{value.dtype}{value.shape}".encode() + value.tobytes())
    return state.hexdigest()


def events(site):
    path = site.parent / "state" / "journal.jsonl"
    journal.verify(path)
    return [json.loads(line.partition(" ")[2])["event"] for line in path.read_text().splitlines()]


def no_training(monkeypatch):
    monkeypatch.setattr("client.personal.train_locally", lambda *a, **k: pytest.fail("it was trained again"))


def test_the_same_order_gets_the_same_bytes_and_no_second_training(site, monkeypatch):
    first = answer(train_order(), site_path=site)
    assert events(site) == ["reply-left"]
    no_training(monkeypatch)
    assert wire(answer(train_order(), site_path=site)) == wire(first)
    # By digest instead of tensors it is the same order.
    assert wire(answer(train_order(sent=()), site_path=site)) == wire(first)
    assert events(site) == ["reply-left", "reply-sent-again", "reply-sent-again"]


def test_another_attempt_gets_the_same_tensors_under_its_number(site, monkeypatch):
    first = answer(train_order(), site_path=site)
    no_training(monkeypatch)
    second = answer(train_order(attempt=2), site_path=site)
    assert second.name.attempt == 2
    assert wire(dataclasses.replace(second, name=first.name)) == wire(first)


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 2},
        {"seed": 2},
        {"measure": True},
        {"shared": {"s": np.ones(2)}},
    ],
)
def test_another_order_is_another_answer(changes):
    assert order_digest(train_order()) != order_digest(train_order(**changes))
    assert order_digest(train_order()) == order_digest(train_order(attempt=5))
    assert order_digest(train_order()) == order_digest(train_order(sent=("ecg_encoder",)))


def test_a_census_is_never_stored(site):
    census = train_order(number=0, kind="census", modules={}, trained={})
    answer(census, site_path=site)
    answer(census, site_path=site)
    assert events(site) == ["reply-left", "reply-left"]
    assert not list((site.parent / "state").glob("replies/*/*"))


def test_a_measurement_is_stored_like_a_training(site, monkeypatch):
    order = train_order(kind="evaluate")
    first = answer(order, site_path=site)
    monkeypatch.setattr("client.round.measure", lambda *a, **k: pytest.fail("it was measured again"))
    assert wire(answer(order, site_path=site)) == wire(first)


@pytest.mark.parametrize("kind", ["short", "flipped", "facts", "absent"])
def test_a_torn_reply_is_computed_anew(kind, site):
    first = answer(train_order(), site_path=site)
    (folder,) = (site.parent / "state" / "replies").glob("*/*")
    arrays = folder / "arrays.safetensors"
    if kind == "short":
        arrays.write_bytes(arrays.read_bytes()[:-10])
    elif kind == "flipped":
        content = bytearray(arrays.read_bytes())
        content[-5] ^= 4
        arrays.write_bytes(content)
    elif kind == "facts":
        (folder / "reply.json").write_text('{"fields": ')
    else:
        arrays.unlink()
    again = answer(train_order(), site_path=site)
    assert {n: m.values.tobytes() for n, m in again.modules.items()} == {
        n: m.values.tobytes() for n, m in first.modules.items()
    }
    assert events(site) == ["reply-left", "reply-left"]
    # It is whole again.
    assert wire(answer(train_order(), site_path=site)) == wire(again)


@pytest.mark.parametrize("function", ["fsync", "rename", "replace"])
def test_a_client_killed_at_every_write_gives_the_same_reply(function, site, monkeypatch, tmp_path):
    untouched = tmp_path / "untouched"
    shutil.copytree(site.parent, untouched, copy_function=shutil.copy2)
    expected = {}
    for number in (1, 2):
        reply = answer(train_order(number), site_path=untouched / "site.yaml")
        expected[number] = {n: m.values.tobytes() for n, m in reply.modules.items()}
    owner = os if function == "fsync" else type(tmp_path)
    real, count = getattr(owner, function), [0, 0]

    def dying(*arguments):
        count[0] += 1
        if count[0] == count[1]:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(owner, function, dying)
    for number in (1, 2):
        reply, lives = None, 0
        while reply is None:
            lives += 1
            count[:] = [0, lives]
            try:
                reply = answer(train_order(number), site_path=site)
            except Killed:
                assert lives < 40
        assert lives > 1
        assert {n: m.values.tobytes() for n, m in reply.modules.items()} == expected[number]
    count[:] = [0, 0]
    assert journal.verify(site.parent / "state" / "journal.jsonl") >= 2


def test_replies_of_earlier_rounds_go_and_the_last_two_stay(site):
    for number in (1, 2, 3):
        answer(train_order(number), site_path=site)
    rounds = [path.name[:5] for path in (site.parent / "state" / "replies").glob("*/*")]
    assert sorted(rounds) == ["00002", "00003"]


def small(number, values=1000):
    layout = Layout(names=("w",), shapes=((values,),))
    module = PackedModule(layout=layout, values=np.full(values, number, dtype=np.float32))
    name = RoundName(study_digest=f"{number:064d}", phase=0, round=1, attempt=1)
    order = Order(kind="train", name=name, study_json="{}", modules={"m": module})
    return order, Reply(site="a", name=name, modules={"m": module}, samples={"m": 1})


def test_the_store_is_bounded_in_bytes_and_the_oldest_go_first(tmp_path):
    store = ReplyStore(tmp_path, maximum_bytes=15_000)
    for number in range(5):
        store.keep(*small(number), patients=9, measured=None)
    found = [store.find(small(number)[0]) is not None for number in range(5)]
    assert found == [False, False, True, True, True] or found == [False, False, False, True, True]
    total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert total <= 15_000
    # One that is larger than the bound still answers its own order.
    store = ReplyStore(tmp_path, maximum_bytes=10)
    store.keep(*small(9), patients=9, measured=None)
    assert store.find(small(9)[0]) is not None


def test_a_permission_that_was_taken_back_holds_for_stored_replies_too(site):

    answer(train_order(), site_path=site)
    content = yaml.safe_load(site.read_text())
    site.write_text(yaml.safe_dump({**content, "policy": {**content["policy"], "maximum_reply_bytes": 10}}))
    with pytest.raises(DisclosureRefusedError):
        answer(train_order(), site_path=site)
    site.write_text(yaml.safe_dump({**content, "policy": {**content["policy"], "phases": ["align"]}}))
    with pytest.raises(PhaseNotPermittedError):
        answer(train_order(), site_path=site)


# -- modules that the site holds -----------------------------------------------------------------------------


def test_a_held_module_that_is_torn_is_asked_for_again(site):

    answer(train_order(), site_path=site)
    assert set(held_digests(site.parent / "state")) >= set(train_order().trained.values())
    shutil.rmtree(site.parent / "state" / "replies")
    for path in (site.parent / "state" / "trained").glob("*/*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(FrozenModuleMissingError):
        answer(train_order(sent=()), site_path=site)
    assert answer(train_order(), site_path=site).code == ""


def test_few_trained_modules_are_kept(site):
    for number in (1, 2, 3, 4):
        answer(train_order(number, seed=number, kind="evaluate"), site_path=site)
    kept = list((site.parent / "state" / "trained" / "ecg_encoder").iterdir())
    assert len(kept) == TRAINED_KEPT
    newest = train_order(seed=4).trained["ecg_encoder"]
    assert newest in {path.stem for path in kept}


PLACES = ("client.replies.save_file", "cardionets_core.audit.journal.os.write", "client.modules.save_file")


# -- disks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize(
    "place",
    PLACES,
)
def test_a_full_disk_ends_as_a_code_with_nothing_half_written(place, number, site, monkeypatch):
    def full(*arguments, **options):
        raise OSError(number, os.strerror(number))

    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, (site,)))])

    def ask():
        message = Message(
            to_records(order_to_envelope(train_order())), dst_node_id=1000, message_type="train"
        )
        (reply,) = grid.send_and_receive([message])
        return dict(from_records(reply.content).fields), from_records(reply.content).arrays

    log = site.parent / "client.log"
    log.unlink(missing_ok=True)
    log.symlink_to("/dev/full")  # the site's own log can be opened, and takes nothing
    with monkeypatch.context() as patched:
        patched.setattr(place, full)
        fields, arrays = ask()
    assert fields["code"] == "storage-failed" and not arrays
    log.unlink()
    assert not [path for path in (site.parent / "state").rglob("*") if path.name.endswith(".part")]
    fields, arrays = ask()
    assert fields["code"] == "" and arrays


def test_a_real_limit_on_file_size_is_told_as_a_failed_disk(site):
    """In a process of its own: the system refuses to write past 100 kB, in Rust as in Python."""

    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        from pathlib import Path
        from cardionets_core.errors import StorageFailedError
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_site_replies import small
        from client.replies import ReplyStore
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        store = ReplyStore(Path({str(site.parent / "limited")!r}), maximum_bytes=10**9)
        try:
            store.keep(*small(1, values=200_000), patients=9, measured=None)
        except StorageFailedError as error:
            print(error.code, store.find(small(1, values=200_000)[0]))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "storage-failed None", done.stderr
    assert not [path for path in (site.parent / "limited").rglob("*") if path.is_file()]
