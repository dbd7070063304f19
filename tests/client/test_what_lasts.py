"""What lasts at a site from round to round, and the gate under strategies with a side at the sites."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.config.site import SiteConfig
from cardionets_core.errors import CheckpointError, DisclosureRefusedError, OrderRefusedError
from cardionets_core.exchange.messages import Order, PackedModule, Reply, RoundName, reply_from_envelope
from cardionets_core.exchange.tensors import Layout
from cardionets_core.training.controls import TAKEN, mark
from cardionets_core.training.local_rule import LocalRule
from cardionets_core.training.memory import InProcess
from client.controls import Controls
from client.gate import release
from client.memory import DiskMemory
from client.permitted import Permitted

LAYOUT = Layout(names=("norm", "w"), shapes=((2,), (1,)))


def packed(*values):
    return PackedModule(layout=LAYOUT, values=np.array(values, dtype=np.float32))


def order(number=1, attempt=1, *, taken=(), **modules):
    return Order(
        kind="train",
        name=RoundName(study_digest="ab" * 32, phase=0, round=number, attempt=attempt),
        study_json="{}",
        modules={"m": packed(0, 0, 0), **{k.replace("__", "."): v for k, v in modules.items()}},
        shared={TAKEN: np.array([-1.0, *taken])},
    )


def state(value):
    return {"x": torch.full((2,), float(value))}


@pytest.fixture(params=["disk", "process"])
def memory(request, tmp_path):
    if request.param == "process":
        return InProcess()
    return DiskMemory(tmp_path / "optimiser", study_digest="ab" * 32, phase=1)


def test_a_site_that_is_drawn_now_and_then_may_be_asked_again(memory):
    for number in (1, 3, 7):
        memory.keep(number, state(number))
        for _ in range(2):
            before = memory.recall(number)
            assert before is None if number == 1 else float(before["x"][0]) == {3: 1, 7: 3}[number]
            memory.keep(number, state(number))
    assert float(memory.recall(8)["x"][0]) == 7


def test_states_that_do_not_count_are_passed_over_and_their_base_is_kept(tmp_path):
    taken = {1}
    memory = DiskMemory(tmp_path / "control", study_digest="ab" * 32, phase=0, counts=taken.__contains__)
    for number in (1, 2, 5, 6):
        memory.keep(number, state(number))
        assert float(memory.recall(number + 1)["x"][0]) == 1
    taken.add(6)
    assert float(memory.recall(7)["x"][0]) == 6


def test_a_torn_state_is_told_with_what_to_do(tmp_path):
    memory = DiskMemory(tmp_path / "personal", study_digest="ab" * 32, phase=0)
    memory.keep(1, state(1))
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="personal state") as torn:
        memory.recall(2)
    assert torn.value.remedy and not list(tmp_path.rglob("*.part"))


def controls(tmp_path, asked):
    return Controls(tmp_path, site="a", order=asked, trains=("m",))


def test_a_control_advances_once_however_often_the_round_is_asked_for(tmp_path):
    """Three rounds by hand; the second is asked for twice, and the reply of the third is lost."""
    sent = packed(1, 1, 2)
    asked = order(1, m__control=packed(0, 0, 0))
    first = controls(tmp_path, asked).close({"m": sent}, way=0.5)["m.control"].values
    np.testing.assert_allclose(first, [-2, -2, -4])  # (x - y) / way, with x = 0
    marks = [mark("a", 0, 1)]
    for attempt in (1, 2):
        again = controls(tmp_path, order(2, attempt, taken=marks, m__control=packed(1, 1, 1)))
        np.testing.assert_allclose(again.shift["m"]["norm"], [3, 3])  # c - c_i
        change = again.close({"m": packed(0, 0, 0)}, way=1.0)["m.control"].values
        np.testing.assert_allclose(change, [-1, -1, -1])  # (x - y) / way - c
    controls(tmp_path, order(3, taken=[mark("a", 0, 2)], m__control=packed(0, 0, 0))).close(
        {"m": sent}, way=1.0
    )
    fourth = controls(tmp_path, order(4, taken=[mark("a", 0, 2)], m__control=packed(0, 0, 0)))
    np.testing.assert_allclose(fourth.shift["m"]["w"], [5])  # c_i of round 2 is -4 - 1


def test_an_order_without_marks_is_refused(tmp_path):
    asked = order(1, m__control=packed(0, 0, 0))
    bare = Order(kind="train", name=asked.name, study_json="{}", modules=asked.modules)
    with pytest.raises(OrderRefusedError):
        controls(tmp_path, bare)


def test_the_gate_lets_out_what_the_rule_names_and_nothing_else(tmp_path):
    config = SiteConfig.model_validate(
        {
            "site": "a",
            "source": {"kind": "mimic_iv_ecg", "root": str(tmp_path)},
            "policy": {"phases": ["ecg_mae"]},
            "folders": {"state": str(tmp_path / "state")},
        }
    )

    control = packed(1, 2, 3)

    def leave(rule, **modules):
        named = {name.replace("__", "."): module for name, module in modules.items()}
        reply = Reply(site="a", name=order().name, modules=named)
        (tmp_path / "state").mkdir(exist_ok=True)
        layouts = dict.fromkeys(("m", *rule.extra_names(("m",))), control.layout)
        allowed = Permitted(layouts=layouts, rule=rule)
        envelope = release(reply, order=order(), config=config, patients=99, permitted=allowed)
        return reply_from_envelope(envelope)

    assert leave(LocalRule(extras=("control",)), m=control, m__control=control).modules
    with pytest.raises(DisclosureRefusedError, match="may not leave"):
        leave(LocalRule(), m=control, m__control=control)
    with pytest.raises(DisclosureRefusedError, match="may not leave"):
        leave(LocalRule(extras=("control",)), m=control, m__personal=control)
    local = LocalRule(local=("m.norm",))
    assert leave(local, m=packed(0, 0, 9)).modules
    with pytest.raises(DisclosureRefusedError, match="local tensors"):
        leave(local, m=packed(0, 1, 9))
