"""Strategies with a side at the sites, in rounds that are asked for again, taken up again or of one trip."""

from __future__ import annotations

import functools
import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import MessageType
from safetensors.numpy import load_file

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.errors import FrozenModuleMissingError, OrderRefusedError
from cardionets_core.exchange.messages import PERSONAL, Order, PackedModule, RoundName
from cardionets_core.exchange.tensors import module_digest, unpack
from cardionets_core.models import build_module
from cardionets_core.training.controls import TAKEN, mark, taken
from client.app import make_app
from client.approvals.store import ApprovalStore
from client.approvals.study_facts import study_facts
from client.journal import JOURNAL
from client.modules import pack_module
from client.rehearsal import left_facts, rehearsal_of
from client.replies import order_digest
from client.round import answer
from server.app import run_study
from server.checkpoints import CheckpointStore
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

SGD = {"name": "sgd", "lr": 0.05, "weight_decay": 0.0, "schedule": "constant"}
ADAMW = {"lr": 1e-3}
MODULES = ("ecg_encoder", "ecg_decoder")


def study_with(strategy, *, rounds=3, optimiser=ADAMW, trips="one", per_round=None, **options) -> Study:
    phase = {"task": "ecg_mae", "rounds": rounds, "local_steps": 2, "batch_size": 8, "optimiser": optimiser}
    return Study.model_validate(
        {
            "name": "once",
            "seed": 5,
            "sites": {"minimum": 2, "deadline_s": 60, "attempts": 2, "per_round": per_round},
            "phases": [phase],
            "evaluation": {"trips": trips},
            "aggregation": {"strategy": strategy, "options": options},
        }
    )


def run(study, hospitals, folder, **options):
    paths = tuple(hospitals[name] for name in sorted(hospitals))
    locate = functools.partial(hospital_of_partition, paths)
    grid = LocalGrid([make_app(locate) for _ in paths], **options)
    return run_study(grid, study, folder=folder, track=False)


def forget(hospitals):
    for path in hospitals.values():
        shutil.rmtree(path.parent / "state", ignore_errors=True)


class Killed(BaseException):
    """The server is gone."""


def killed_at(count):
    """Kills the server when it sends a training order for the ``count``-th time."""
    sent = []

    def kill(message):
        if message.metadata.message_type == MessageType.TRAIN:
            sent.append(message)
            if len(sent) == count:
                raise Killed
        return False

    return kill


def lasting(path):
    """Bytes of what a site carries from round to round."""
    return {
        (kind, file.name): file.read_bytes()
        for kind in ("control", "local-tensors", "personal", "personal-optimiser", "optimiser")
        for file in sorted((path.parent / "state" / kind).rglob("*.safetensors"))
    }


# -- the server is killed inside a round ---------------------------------------------------------------------


@pytest.mark.parametrize("per_round, stored", [(None, 1), (None, 2), (2, 1)])
def test_scaffold_killed_inside_a_round_goes_on_to_the_same_model(hospitals, tmp_path, per_round, stored):
    """With what is stored of the round, no site that has answered is asked again, and c is the same."""
    study, each = study_with("scaffold", optimiser=SGD, per_round=per_round), per_round or 3
    whole = run(study, hospitals, tmp_path / "whole")
    states = {name: lasting(path) for name, path in hospitals.items()}
    forget(hospitals)
    with pytest.raises(Killed):
        run(study, hospitals, tmp_path / "killed", lost=killed_at(each + stored + 1))
    asked = []

    def note(message):
        if message.metadata.message_type == MessageType.TRAIN:
            asked.append(int(message.content.config_records["fields"]["round"]))
        return False

    resumed = run(study, hospitals, tmp_path / "killed", lost=note)
    assert resumed["model_digest"] == whole["model_digest"]
    assert {name: lasting(path) for name, path in hospitals.items()} == states
    assert asked == [2] * (each - stored) + [3] * each
    for mine, theirs in zip(resumed["rounds"], whole["rounds"], strict=True):
        assert mine["pooled"] == theirs["pooled"] and mine["model_digest"] == theirs["model_digest"]


# -- one trip ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy, optimiser, options",
    [
        ("scaffold", SGD, {}),
        ("fedbn", ADAMW, {}),
        ("ditto", {**ADAMW, "state": "persist"}, {"lambda": 0.5}),
        ("qfedavg", ADAMW, {"q": 2.0, "local_rate": 0.001}),
    ],
)
def test_one_trip_gives_the_model_and_the_metrics_of_two(hospitals, tmp_path, strategy, optimiser, options):
    found, states, measured = {}, {}, {}
    for trips in ("one", "two"):
        forget(hospitals)
        seen = []

        def count(message, seen=seen):
            seen.append(message.metadata.message_type)
            return False

        study = study_with(strategy, optimiser=optimiser, trips=trips, **options)
        found[trips] = run(study, hospitals, tmp_path / trips, lost=count)
        states[trips] = {name: sorted(lasting(path).items()) for name, path in hospitals.items()}
        measured[trips] = seen.count(MessageType.EVALUATE)
    assert measured == {"one": 6, "two": 12}  # the last round measures validation and test patients
    assert found["one"]["model_digest"] == found["two"]["model_digest"]
    assert states["one"] == states["two"]
    for mine, theirs in zip(found["one"]["rounds"], found["two"]["rounds"], strict=True):
        assert mine["model_digest"] == theirs["model_digest"]
        assert mine["pooled"] and mine["pooled"] == theirs["pooled"]
        assert mine.get("personal") == theirs.get("personal")
        assert ("personal" in mine) == (strategy == "ditto")
        assert mine.get("test") == theirs.get("test")
        for row, other in zip(mine["sites"], theirs["sites"], strict=True):
            assert row["metrics"] == other["metrics"] and row["loss"] == other["loss"]
            assert row.get("first_loss") == other.get("first_loss")


# -- a stored reply is given again ---------------------------------------------------------------------------


def train_order(study, *, number=1, attempt=1, marks=(), shift=None):
    """An order to train as the server makes it; SCAFFOLD's control variates are all ``shift``."""
    modules = {name: pack_module(build_module(name, study.models, seed=3)) for name in MODULES}
    trained = {name: module_digest(each.layout, each.values) for name, each in modules.items()}
    shared = {}
    if shift is not None:
        shared = {TAKEN: taken(marks)}
        for name in MODULES:
            values = np.full_like(modules[name].values, shift)
            modules[f"{name}.control"] = PackedModule(layout=modules[name].layout, values=values)
    return Order(
        kind="train",
        name=RoundName(study_digest=study.digest, phase=0, round=number, attempt=attempt),
        study_json=study.to_json(),
        modules=modules,
        trained=trained,
        shared=shared,
    )


def by_digest(order):
    """The same order for a site that holds its modules."""
    return replace(order, modules={k: v for k, v in order.modules.items() if k not in order.trained})


def same_reply(a, b):
    return (
        a.modules.keys() == b.modules.keys()
        and all(np.array_equal(a.modules[m].values, b.modules[m].values) for m in a.modules)
        and (a.samples, a.values) == (b.samples, b.values)
    )


def events(path):
    text = (path.parent / "state" / JOURNAL).read_text(encoding="utf-8")
    return [
        word
        for line in text.splitlines()
        for word in ("reply-left", "reply-sent-again")
        if f'"{word}"' in line
    ]


def test_a_stored_reply_under_scaffold_advances_no_control_and_depends_on_what_came_beside(hospitals):
    path = hospitals["alpha"]
    study = study_with("scaffold", optimiser=SGD)
    first = train_order(study, shift=0.0)
    reply = answer(first, site_path=path)
    assert {f"{name}.control" for name in MODULES} < reply.modules.keys()
    before = lasting(path)
    again = answer(by_digest(replace(first, name=replace(first.name, attempt=2))), site_path=path)
    assert same_reply(again, reply) and again.name.attempt == 2
    assert lasting(path) == before
    assert events(path) == ["reply-left", "reply-sent-again"]

    # The second round, twice in a row; then with another control variate, and with other marks.
    own = mark("alpha", 0, 1)
    second = by_digest(train_order(study, number=2, marks=[own], shift=0.0))
    reply = answer(second, site_path=path)
    before = lasting(path)
    assert same_reply(answer(second, site_path=path), reply) and lasting(path) == before
    assert not same_reply(
        answer(by_digest(train_order(study, number=2, marks=[own], shift=0.5)), site_path=path), reply
    )
    assert not same_reply(answer(by_digest(train_order(study, number=2, shift=0.0)), site_path=path), reply)
    assert events(path)[2:] == ["reply-left", "reply-sent-again", "reply-left", "reply-left"]


def test_the_digest_of_an_order_holds_all_but_the_attempt(hospitals):
    study = study_with("scaffold", optimiser=SGD)
    order = train_order(study, shift=0.0)
    digest = order_digest(order)
    assert order_digest(by_digest(order)) == digest
    assert order_digest(replace(order, name=replace(order.name, attempt=7))) == digest
    assert order_digest(replace(order, trained={})) == digest
    others = [
        train_order(study, shift=0.5),
        train_order(study, shift=0.0, marks=[1.0]),
        replace(order, measure=True),
        replace(order, name=replace(order.name, round=2)),
    ]
    assert len({digest, *map(order_digest, others)}) == 5


def test_a_stored_reply_under_fedbn_still_passes_the_gate(hospitals):
    """Its local tensors are compared with what was sent, though the order only names it."""
    path = hospitals["alpha"]
    study = study_with("fedbn")
    order = train_order(study)
    reply = answer(order, site_path=path)
    before = lasting(path)
    again = answer(by_digest(replace(order, name=replace(order.name, attempt=2))), site_path=path)
    assert same_reply(again, reply) and lasting(path) == before
    for name in MODULES:
        shutil.rmtree(path.parent / "state" / "trained" / name)
    with pytest.raises(FrozenModuleMissingError):
        answer(by_digest(order), site_path=path)
    assert same_reply(answer(order, site_path=path), reply) and lasting(path) == before


def test_a_stored_reply_under_ditto_trains_nobody_further(hospitals):
    path = hospitals["alpha"]
    study = study_with("ditto", optimiser={**ADAMW, "state": "persist"})
    order = replace(train_order(study), measure=True)
    reply, before = answer(order, site_path=path), lasting(path)
    assert any(name.startswith(f"measured/{PERSONAL}") for name in reply.sums)
    again = answer(by_digest(order), site_path=path)
    assert same_reply(again, reply) and lasting(path) == before
    assert all(np.array_equal(again.sums[name], value) for name, value in reply.sums.items())


@pytest.mark.parametrize("what", ["absent", "stranger", "digest", "layout", "nan", "too long"])
def test_what_comes_beside_the_modules_is_checked_like_them(hospitals, what):
    study = study_with("scaffold", optimiser=SGD)
    order = train_order(study, shift=0.0)
    modules, trained, control = dict(order.modules), dict(order.trained), "ecg_encoder.control"
    match what:
        case "absent":
            del modules[control]
        case "stranger":
            modules["ecg_encoder.velocity"] = modules[control]
        case "digest":
            trained[control] = hashlib.sha256(b"").hexdigest()
        case "layout":
            modules[control] = modules["ecg_decoder.control"]
        case "nan":
            modules[control] = replace(modules[control], values=modules[control].values * np.nan)
        case "too long":
            longer = np.append(modules[control].values, np.float32(0))
            modules[control] = replace(modules[control], values=longer)
    with pytest.raises(OrderRefusedError):
        answer(replace(order, modules=modules, trained=trained), site_path=hospitals["alpha"])
    assert not lasting(hospitals["alpha"])


# -- sites drawn by the seed ---------------------------------------------------------------------------------


def test_of_two_sites_drawn_of_three_the_controls_change_counts_two_thirds(hospitals, tmp_path):
    """c stays the mean of all c_i, a site that was never drawn standing for zero."""
    study = study_with("scaffold", rounds=4, optimiser=SGD, per_round=2, weights="equal")
    with pytest.raises(Killed):
        run(study, hospitals, tmp_path / "run", lost=killed_at(7))  # before the fourth round trains
    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints", study_digest=study.digest).latest()
    assert checkpoint.round == 3
    assert all(
        sum(row["status"] == "trained" for row in entry["sites"]) == 2
        for entry in checkpoint.history
        if entry["round"]
    )
    own = []
    for path in hospitals.values():
        files = sorted((path.parent / "state" / "control").rglob("*.safetensors"))
        own.append(load_file(files[-1]) if files else {})
    assert sum(map(bool, own)) >= 2
    for module in MODULES:
        control = unpack(checkpoint.layouts[module], checkpoint.values(f"{module}.control"))
        for name, value in control.items():
            mean = sum(each.get(f"{module}/{name}", np.zeros(1)).astype(np.float64) for each in own) / 3
            np.testing.assert_allclose(value, mean, atol=1e-6 * max(1.0, float(np.abs(mean).max())))


# -- what IT is shown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy, optimiser", [("scaffold", SGD), ("ditto", ADAMW), ("fedbn", ADAMW)])
def test_it_is_told_the_bytes_that_a_strategy_sends(hospitals, tmp_path, strategy, optimiser):
    study, path = study_with(strategy, optimiser=optimiser), hospitals["alpha"]
    store = ApprovalStore(tmp_path / "approvals")
    (told,) = study_facts(study, store, config=read_site(path))["phases"]
    (tmp_path / "scratch").mkdir()
    rehearsal = rehearsal_of(path, study, phase=0, scratch=tmp_path / "scratch", tell=lambda line: None)
    left = {facts["kind"]: facts for facts in map(left_facts, rehearsal.run())}
    assert [facts["code"] for facts in left.values()] == [""] * 3
    assert left["train"]["bytes"] == told["update_bytes"]
    assert left["evaluate"]["bytes"] == told["metric_sum_bytes"]
    names = [array["name"] for array in left["evaluate"]["arrays"]]
    assert sorted(name.removeprefix("sum/") for name in names) == told["metric_sums"]
    plain = study_facts(study_with("fedavg"), store, config=None)["phases"][0]
    assert told["update_bytes"] == plain["update_bytes"] * (2 if strategy == "scaffold" else 1)
