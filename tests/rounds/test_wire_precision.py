"""Whole rounds with updates in fp32, bf16 and int8: bytes, distance, repeats, resumed runs, hostile codes."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import MessageType

from cardionets_core.config.study import Study
from cardionets_core.errors import DisclosureRefusedError, OrderRefusedError, ReplyRefusedError
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.exchange.precision import wire_bytes
from cardionets_core.exchange.tensors import module_digest
from cardionets_core.exchange.updates import from_update
from cardionets_core.models import build_module
from cardionets_core.training.controls import TAKEN, mark, taken
from cardionets_core.training.local_rule import local_rule
from client import updates
from client.app import make_app
from client.local_tensors import check_none_leaves
from client.modules import pack_module
from client.round import answer
from client.updates import FOLDER, check_codes
from server.app import run_study
from server.checkpoints import CheckpointStore
from server.updates import with_tensors
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

MODULES = ("ecg_encoder", "ecg_decoder")
SIZES = {name: pack_module(build_module(name, "nano", seed=0)).values.size for name in MODULES}


def study_in(form, *, rounds=3, strategy="fedavg", optimiser=None) -> Study:
    optimiser = optimiser or {"lr": 1e-3}
    phase = {"task": "ecg_mae", "rounds": rounds, "local_steps": 2, "batch_size": 8, "optimiser": optimiser}
    return Study.model_validate(
        {
            "name": "wire",
            "seed": 5,
            "sites": {"minimum": 2, "deadline_s": 60, "attempts": 2},
            "phases": [phase],
            "aggregation": {"strategy": strategy},
            "exchange": {"precision": form},
        }
    )


def run(study, hospitals, folder, **options):
    paths = tuple(hospitals[name] for name in sorted(hospitals))
    locate = functools.partial(hospital_of_partition, paths)
    return run_study(
        LocalGrid([make_app(locate) for _ in paths], **options), study, folder=folder, track=False
    )


def forget(hospitals):
    for path in hospitals.values():
        shutil.rmtree(path.parent / "state", ignore_errors=True)


def lasting(path):
    return {
        file.name: file.read_bytes()
        for file in sorted((path.parent / "state" / FOLDER).rglob("*.safetensors"))
    }


def weights(folder, study):
    last = CheckpointStore(folder / "checkpoints", study_digest=study.digest).latest()
    return np.concatenate([last.values(name) for name in MODULES]).astype(np.float64)


def test_bytes_shrink_and_error_feedback_stays_nearer_to_fp32(hospitals, tmp_path, monkeypatch):
    found, end = {}, {}
    for form in ("fp32", "bf16", "int8", "forgetful"):
        forget(hospitals)
        if form == "forgetful":
            monkeypatch.setattr(updates.Updates, "_carried", lambda self, name, packed: None)
        study = study_in("int8" if form == "forgetful" else form, rounds=6)
        found[form] = run(study, hospitals, tmp_path / form)
        end[form] = weights(tmp_path / form, study)
        updates_bytes = 3 * sum(wire_bytes(study.exchange.precision, size) for size in SIZES.values())
        # What came in the first round is the updates alone: nothing was measured yet.
        (first,) = [entry for entry in found[form]["rounds"] if entry["round"] == 1]
        assert first["bytes_received"] - updates_bytes < 0.01 * 12 * sum(SIZES.values())
        assert first["bytes_received"] >= updates_bytes
    away = {form: np.linalg.norm(end[form] - end["fp32"]) for form in end}
    assert away["bf16"] > 0 and away["int8"] < away["forgetful"]


class Killed(BaseException):
    """The server is gone."""


@pytest.mark.parametrize("form, strategy", [("int8", "fedavg"), ("bf16", "fedbn"), ("int8", "scaffold")])
def test_a_killed_server_goes_on_to_the_same_model(hospitals, tmp_path, form, strategy):
    optimiser = {"name": "sgd", "lr": 0.05, "weight_decay": 0.0} if strategy == "scaffold" else None
    study = study_in(form, strategy=strategy, optimiser=optimiser)
    whole = run(study, hospitals, tmp_path / "whole")
    states = {name: lasting(path) for name, path in hospitals.items()}
    assert all(bool(state) == (form == "int8") for state in states.values())
    forget(hospitals)
    sent = []

    def kill(message):
        if message.metadata.message_type == MessageType.TRAIN:
            sent.append(message)
            if len(sent) == 5:
                raise Killed
        return False

    with pytest.raises(Killed):
        run(study, hospitals, tmp_path / "killed", lost=kill)
    resumed = run(study, hospitals, tmp_path / "killed")
    assert resumed["model_digest"] == whole["model_digest"]
    assert {name: lasting(path) for name, path in hospitals.items()} == states


def train_order(study, *, number=1, marks=()):
    modules = {name: pack_module(build_module(name, study.models, seed=3)) for name in MODULES}
    return Order(
        kind="train",
        name=RoundName(study_digest=study.digest, phase=0, round=number, attempt=1),
        study_json=study.to_json(),
        modules=modules,
        trained={name: module_digest(each.layout, each.values) for name, each in modules.items()},
        shared={TAKEN: taken(marks)} if study.exchange.precision == "int8" else {},
    )


def same(a, b):
    return all(
        np.array_equal(a.modules[m].values, b.modules[m].values)
        and np.array_equal(a.modules[m].scales, b.modules[m].scales)
        and a.modules[m].form == b.modules[m].form
        for m in MODULES
    )


def test_a_repeated_round_advances_nothing_and_what_was_not_taken_is_not_carried(hospitals):
    path, study = hospitals["alpha"], study_in("int8")
    first = train_order(study)
    reply, state = answer(first, site_path=path), lasting(path)
    again = answer(replace(first, name=replace(first.name, attempt=2)), site_path=path)
    assert same(again, reply) and again.name.attempt == 2 and lasting(path) == state and len(state) == 1

    carried = train_order(study, number=2, marks=[mark("alpha", 0, 1)])
    reply, state = answer(carried, site_path=path), lasting(path)
    # Without the stored reply the round is trained anew, from the same remainder to the same one.
    shutil.rmtree(path.parent / "state" / "replies")
    assert same(answer(carried, site_path=path), reply) and lasting(path) == state
    assert not same(answer(train_order(study, number=2), site_path=path), reply)


def test_an_order_without_the_marks_of_what_was_taken_is_refused(hospitals):
    order = replace(train_order(study_in("int8")), shared={})
    with pytest.raises(OrderRefusedError, match="taken"):
        answer(order, site_path=hospitals["alpha"])


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_what_arrives_is_the_trained_module_and_hostile_codes_are_refused(hospitals, form):
    path = hospitals["alpha"]
    plain = answer(train_order(study_in("fp32")), site_path=path)
    study = study_in(form)
    order, rule = train_order(study), local_rule(study)
    reply = answer(order, site_path=path)
    layouts = {name: each.layout for name, each in order.modules.items()}

    def opened(came):
        return with_tensors(
            came, site="alpha", layouts=layouts, rule=rule, current=lambda name: order.modules[name].values
        )

    for name, each in opened(reply).modules.items():
        moved = np.abs(plain.modules[name].values - order.modules[name].values).max()
        assert each.form == "fp32" and each.values.dtype == np.float32
        np.testing.assert_allclose(each.values, plain.modules[name].values, atol=moved / 127)
        alone = from_update(reply.modules[name], order.modules[name].values)
        np.testing.assert_array_equal(each.values, alone.values)
    packed = reply.modules["ecg_encoder"]
    for wrong in (
        plain.modules["ecg_encoder"],
        replace(packed, values=packed.values[:-1]),
        replace(packed, scales=np.full(max(1, packed.scales.size), np.nan, dtype=np.float32)),
    ):
        with pytest.raises(ReplyRefusedError):
            opened(replace(reply, modules={**reply.modules, "ecg_encoder": wrong}))
        with pytest.raises(DisclosureRefusedError):
            check_codes({"ecg_encoder": wrong}, rule=rule)
    with pytest.raises(ReplyRefusedError):
        with_tensors(reply, site="alpha", layouts=layouts, rule=local_rule(study_in("fp32")), current=None)


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_of_local_tensors_only_zeros_leave_and_they_come_back_byte_for_byte(hospitals, form):
    study = study_in(form, strategy="fedbn")
    order, rule = train_order(study), local_rule(study)
    reply = answer(order, site_path=hospitals["alpha"])
    packed, sent = reply.modules["ecg_encoder"], order.modules["ecg_encoder"].values
    parts = rule.kept_parts("ecg_encoder", packed.layout)
    assert parts and packed.values.any()
    back = from_update(packed, sent).values
    for part in parts:
        assert not packed.values[part].any() and back[part].tobytes() == sent[part].tobytes()
    values = packed.values.copy()
    values[parts[0]] = 1
    with pytest.raises(DisclosureRefusedError, match="local tensors"):
        check_none_leaves({"ecg_encoder": replace(packed, values=values)}, order=order, rule=rule)
