"""Faults and attackers by schedule: what the real server makes of them, on the in-process grid."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pydantic import TypeAdapter

from cardionets_core.config.study import Study
from server.app import run_study
from server.checkpoints import CheckpointStore
from simulation.events.grid import EventfulGrid
from simulation.events.schedule import Event
from simulation.events.table import event_rows
from simulation.flower import run_locally
from simulation.local_grid import LocalGrid

SITES = ("a", "b", "c", "d", "e")


def schedule(*events):
    return tuple(TypeAdapter(Event).validate_python(event) for event in events)


@pytest.fixture
def run(fake_sites, quick, tmp_path):
    """Runs a study of five made-up sites under a schedule; gives result, model and sites."""
    done = []

    def go(*events, strategy="fedavg", options=None, minimum=2, bound=None, **study):
        content = quick.model_dump(mode="json")
        content |= {"aggregation": {"strategy": strategy, "options": options or {}}, **study}
        content["sites"]["minimum"] = minimum
        content["reply_bounds"]["maximum_update_norm"] = bound
        asked = Study.model_validate(content)
        sites = fake_sites(*SITES)
        inner = LocalGrid([site.app() for site in sites.values()], names=SITES)
        grid = EventfulGrid(inner, schedule(*events), study=asked, seed=3)
        folder = tmp_path / str(len(done))
        result = run_study(grid, asked, folder=folder, track=False)
        done.append(folder)
        checkpoint = CheckpointStore(folder / "checkpoints", study_digest=asked.digest).latest()
        model = np.concatenate([checkpoint.values(name).ravel() for name in sorted(checkpoint.digests)])
        return {**result, "events": list(events)}, model, sites

    return go


def left_out(result):
    return {
        (row["site"], entry["round"]): row["code"]
        for entry in result["rounds"]
        for row in entry["sites"]
        if row["status"] == "left-out"
    }


def test_an_offline_site_is_left_out_and_named(run):
    result, _, sites = run({"site": "b", "kind": "offline", "phase": "ecg_mae", "rounds": [2, 3]})
    assert left_out(result) == {("b", 2): "unreachable", ("b", 3): "unreachable"}
    assert sorted({name[1] for name in sites["b"].asked_for("train")}) == [1]
    assert event_rows(result) == [["b", "offline", "ecg_mae", "2-3", "left out: unreachable"]]


def test_a_late_site_does_the_work_for_nothing_and_nobody_waits(run):
    result, model, sites = run({"site": "b", "kind": "late", "rounds": [2, 2]})
    assert left_out(result) == {("b", 2): "late"}
    assert sites["b"].trained == 3
    offline, without, _ = run({"site": "b", "kind": "offline", "rounds": [2, 2]})
    assert np.array_equal(model, without) and result["model_digest"] == offline["model_digest"]


def test_a_crash_costs_an_attempt_and_not_the_round(run):
    result, _, _ = run({"site": "b", "kind": "crash", "rounds": [2, 2]})
    assert left_out(result) == {("b", 2): "crashed"}
    again, _, _ = run({"site": "b", "kind": "crash", "rounds": [2, 2]}, minimum=5)
    # All five are needed, so the round is tried again, and then b answers.
    assert left_out(again) == {} and again["rounds"][1]["attempt"] == 2


def test_a_slow_site_takes_its_time_and_changes_nothing(run):
    result, model, _ = run({"site": "b", "kind": "slow", "seconds": 0.01})
    _, plain, _ = run()
    assert np.array_equal(model, plain) and left_out(result) == {}
    assert {row[1] for row in event_rows(result)} == {"slow"}


def test_values_that_are_no_numbers_are_refused(run):
    result, model, _ = run({"site": "c", "kind": "nan"})
    assert set(left_out(result).values()) == {"reply-refused"} and np.isfinite(model).all()
    rows = event_rows(result)
    assert rows[0][:2] == ["c", "nan"] and "left out: reply-refused" in rows[0][4]


ATTACK = {"site": "e", "kind": "scale", "factor": 100.0}
ROBUST = {
    "median": {},
    "trimmed_mean": {"trim": 0.2},
    "krum": {"attackers": 1},
    "multi_krum": {"attackers": 1},
    "norm_bound": {"bound": 1.0},
}


def test_a_scaled_update_moves_the_mean_and_no_robust_strategy(run):
    def moved(**more):
        """How far the attack moves the model that there is without it."""
        _, honest, _ = run(phases=phases(1), minimum=5, **more)
        result, attacked, _ = run(ATTACK, phases=phases(1), minimum=5, **more)
        return float(np.linalg.norm(attacked - honest)), left_out(result)

    far, nobody = moved()
    assert nobody == {}
    for strategy, options in ROBUST.items():
        near, _ = moved(strategy=strategy, options=options)
        assert near < far / 10, strategy


def test_a_bound_on_replies_leaves_an_attacker_out(run):
    _, honest, _ = run(phases=phases(1))
    result, model, _ = run(ATTACK, phases=phases(1), bound=5.0)
    assert left_out(result) == {("e", 1): "reply-refused"}
    _, fooled, _ = run(ATTACK, phases=phases(1))
    assert np.linalg.norm(model - honest) < np.linalg.norm(fooled - honest) / 10


@pytest.mark.parametrize(
    "attack",
    [
        {"kind": "sign_flip"},
        {"kind": "noise", "factor": 2.0},
        {"kind": "replay"},
    ],
)
def test_the_same_attack_gives_the_same_model_and_another_one_than_honesty(run, attack):
    first, _, _ = run({"site": "e", **attack})
    second, _, _ = run({"site": "e", **attack})
    honest, _, _ = run()
    assert first["model_digest"] == second["model_digest"] != honest["model_digest"]


def test_an_attack_is_what_its_words_say(run):
    _, honest, _ = run(phases=phases(1))
    _, flipped, _ = run({"site": "e", "kind": "sign_flip", "factor": 2.0}, phases=phases(1))
    _, scaled, _ = run({"site": "e", "kind": "scale", "factor": 4.0}, phases=phases(1))
    # With u for its update and w for its weight: one moves the mean by - 3 w u, the other by + 3 w u.
    np.testing.assert_allclose(flipped + scaled, 2 * honest, atol=1e-6)
    assert not np.allclose(flipped, honest, atol=1e-6)


def phases(rounds):
    return [
        {"task": "ecg_mae", "rounds": rounds, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    ]


def test_real_clients_under_a_schedule_repeat_to_the_bit(consortium, hospitals, tmp_path):
    study = Study.model_validate(
        {
            "name": "scheduled",
            "seed": 5,
            "sites": {"minimum": 2, "deadline_s": 60},
            "phases": phases(3),
        }
    )
    events = schedule(
        {"site": "beta", "kind": "late", "rounds": [1, 1]},
        {"site": "alpha", "kind": "nan", "rounds": [2, 2]},
        {"site": "gamma", "kind": "noise", "rounds": [2, 3]},
    )
    digests = set()
    for name in ("one", "two"):
        result = run_locally(
            study,
            sorted(hospitals.values()),
            folder=tmp_path / name,
            progress=lambda event: None,
            track=False,
            events=events,
            seed=1,
        )
        digests.add(result["model_digest"])
        assert left_out(result) == {("beta", 1): "late", ("alpha", 2): "reply-refused"}
        for path in hospitals.values():
            shutil.rmtree(path.parent / "state", ignore_errors=True)
    assert len(digests) == 1
