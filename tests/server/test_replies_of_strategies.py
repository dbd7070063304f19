"""What a reply must hold under a strategy with a side at the sites, and what the round store makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.config.study import ReplyBounds
from cardionets_core.errors import ReplyRefusedError
from cardionets_core.exchange.messages import Order, PackedModule, Reply, RoundName
from cardionets_core.exchange.tensors import Layout
from cardionets_core.training.controls import TAKEN, mark
from cardionets_core.training.local_rule import LocalRule
from server.aggregation import population_of, taken_marks
from server.checkpoint import Stretches
from server.reply_checks import check_reply
from server.round_store import RoundStore

LAYOUT = Layout(names=("norm", "w"), shapes=((2,), (3,)))
NAME = RoundName(study_digest="0" * 64, phase=0, round=1, attempt=1)
CONTROL = LocalRule(extras=("control",))
LOCAL = LocalRule(local=("m.norm",))
NOVA = LocalRule(reports=("normaliser",))
FAIR = LocalRule(reports=("first_loss",))


def packed(values, layout=LAYOUT, dtype=np.float32):
    return PackedModule(layout=layout, values=np.array(values, dtype=dtype))


def check(rule, *, bounds=None, samples=None, values=None, **modules):
    modules = {"m": packed([0, 0, 5, 5, 5]), **{k.replace("__", "."): v for k, v in modules.items()}}
    modules = {name: module for name, module in modules.items() if module is not None}
    sent = {"m": packed([0.0] * 5), "m.control": packed([0.0] * 5)}
    order = Order(kind="train", name=NAME, study_json="{}", modules=sent)
    reply = Reply(
        site="a",
        name=NAME,
        modules=modules,
        samples=samples or {"m": 4},
        values={"steps": 1.0} | (values or {}),
    )
    check_reply(
        reply, order=order, site="a", layouts={"m": LAYOUT}, bounds=bounds or ReplyBounds(), rule=rule
    )
    return reply


def test_a_control_comes_with_its_module_and_is_kept_beside_it(tmp_path):
    reply = check(CONTROL, m__control=packed([1, 2, 3, 4, 5]), values={"loss": 0.5})
    store = RoundStore(tmp_path / "round")
    store.accept(reply)
    (found,) = store.module("m")
    assert found.samples == 4 and found.values["loss"] == 0.5
    np.testing.assert_array_equal(np.fromfile(found.extras["control"], "<f4"), [1, 2, 3, 4, 5])
    assert store.module("m.control") == []
    store.forget_arrays()
    assert not list((tmp_path / "round").rglob("*.f32"))


@pytest.mark.parametrize(
    "control",
    [
        None,
        packed([1, 2, 3, 4]),
        packed([1, 2, np.nan, 4, 5]),
        packed([1, 2, 3, 4, 5], dtype=np.float64),
        packed([1, 2, 3, 4, 5], Layout(names=("w", "norm"), shapes=((3,), (2,)))),
    ],
)
def test_a_control_that_is_absent_or_wrong_is_refused(control):
    with pytest.raises(ReplyRefusedError):
        check(CONTROL, m__control=control)


def test_a_control_that_nobody_asked_for_or_with_samples_is_refused():
    control = packed([1, 2, 3, 4, 5])
    with pytest.raises(ReplyRefusedError, match="does not train"):
        check(LocalRule(), m__control=control)
    with pytest.raises(ReplyRefusedError):
        check(CONTROL, m__control=control, m__more=control)
    with pytest.raises(ReplyRefusedError, match="sample counts"):
        check(CONTROL, m__control=control, samples={"m": 4, "m.control": 4})
    with pytest.raises(ReplyRefusedError):
        check(CONTROL, m=None, m__control=control, samples={"m": 4})


def test_the_bound_of_a_move_is_not_one_of_gradients():
    bounds = ReplyBounds(maximum_update_norm=10.0)
    check(CONTROL, m__control=packed([1e6] * 5), bounds=bounds)
    with pytest.raises(ReplyRefusedError, match="moved by"):
        check(CONTROL, m=packed([0, 0, 50, 0, 0]), m__control=packed([0] * 5), bounds=bounds)


def test_local_tensors_come_as_they_were_sent():
    check(LOCAL)
    with pytest.raises(ReplyRefusedError, match="stay at the site"):
        check(LOCAL, m=packed([0, 1e-6, 5, 5, 5]))


def test_what_the_strategy_reads_of_a_reply_must_be_there_and_make_sense():
    check(NOVA, values={"normaliser": 2.0})
    check(FAIR, values={"first_loss": 0.0})
    for rule, values in ((NOVA, {}), (NOVA, {"normaliser": 0.0}), (FAIR, {"first_loss": -0.1}), (FAIR, {})):
        with pytest.raises(ReplyRefusedError, match="absent or too low"):
            check(rule, values=values)


def test_marks_are_those_of_each_sites_last_reply_of_the_phase():
    def entry(phase, number, **status):
        return {
            "phase": phase,
            "round": number,
            "sites": [
                {"site": s, "status": t, **({"samples": {"m": 4}} if t == "trained" else {})}
                for s, t in status.items()
            ],
        }

    history = [
        entry(0, 1, a="trained", b="trained"),
        entry(1, 1, a="trained", b="left-out", c="trained"),
        entry(1, 2, a="trained", b="left-out", c="left-out"),
    ]
    (marks,) = taken_marks(history, phase=1).values()
    assert set(marks[1:]) == {mark("a", 1, 2), mark("c", 1, 1)}
    assert taken_marks([], phase=0)[TAKEN].tolist() == [-1.0]

    # A reply without samples, of a site that had no usable row that day, does not enter the model.
    empty = entry(1, 3, a="trained")
    empty["sites"][0]["samples"] = {}
    assert np.array_equal(taken_marks([*history, empty], phase=1)[TAKEN], [-1.0, *marks[1:]])
    # b was there in phase 0 only; d could serve and never entered.
    assert population_of([*history, empty], phase=1, names={"a", "d"}) == 3
    assert population_of(history, phase=2, names={"a"}) == 1


def test_a_model_on_disk_judges_as_the_one_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("server.reply_checks.CHUNK_VALUES", 2)
    now, sent = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 8.0]
    np.array(now, dtype="<f4").tofile(tmp_path / "m.f32")
    order = Order(kind="train", name=NAME, study_json="{}")
    reply = Reply(site="a", name=NAME, modules={"m": packed(sent)}, samples={"m": 4})

    def judge(largest, rule=LOCAL):
        check_reply(
            reply, order=order, site="a", layouts={"m": LAYOUT}, rule=rule,
            bounds=ReplyBounds(maximum_update_norm=largest), current=lambda _: Stretches(tmp_path / "m.f32"),
        )  # fmt: skip

    judge(3.0)
    with pytest.raises(ReplyRefusedError, match="moved by 3"):
        judge(2.999)
    with pytest.raises(ReplyRefusedError, match="stay at the site"):
        judge(3.0, LocalRule(local=("m.w",)))
