"""Whatever dies in a round: nothing finished is lost, and the model is that of an undisturbed run."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
import time

import pytest

pytestmark = pytest.mark.system
SEEDS = itertools.count(100)
STUDY_S = 1200.0


@pytest.fixture
def study(field):
    return field.small_study(next(SEEDS))


@pytest.mark.parametrize("generation", ["cardionets", "cardiacnets"])
def test_the_same_digest_in_simulation_and_on_the_deployment(
    field, generation, undisturbed, on_flowers_engine
):
    steps = {"local_steps": 4, "batch_size": 8, "optimiser": {"lr": 1e-3}}
    rounds = {"cmr_mae": 1, "ecg_mae": 3, "align": 1}
    study = field.small_study(
        next(SEEDS),
        generation=generation,
        # One of the sites has no cines.
        sites={"minimum": 2, "deadline_s": 300, "attempts": 6},
        phases=[{"task": task, "rounds": count, **steps} for task, count in rounds.items()],
    )
    out = field.begin(study)
    result = field.check_whole(out, study, undisturbed)
    assert result["model_digest"] == on_flowers_engine(study)


def test_a_client_killed_in_training(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    field.kill(field.until(lambda: field.orders_in_work("beta"))[0])
    field.check_whole(out, study, undisturbed)


def test_a_supernode_killed_and_back_while_the_link_thinks_it_online(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    first = field.process("gamma", "supernode")
    field.kill(first)
    field.until(lambda: field.process("gamma", "supernode") != first, seconds=120)
    field.check_whole(out, study, undisturbed)


def test_a_serverapp_killed(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    field.kill(field.until(lambda: field.children("server", "flwr-serverapp"))[0])
    field.check_whole(out, study, undisturbed)


def test_the_superlink_killed_within_the_lease(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    run_id = field.status()["study"]["run_id"]
    field.kill(field.process("server", "superlink"))
    field.check_whole(out, study, undisturbed)
    assert field.status()["study"]["run_id"] == run_id, "the run did not outlive the SuperLink"


def test_the_superlink_lost_with_its_database(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    run_id = field.status()["study"]["run_id"]
    field.run("cardionets-server", "stop", field.server)
    for file in field.workspace.link.glob("link.db*"):
        file.unlink()
    field.start_server()
    field.check_whole(out, study, undisturbed)
    assert field.status()["study"]["run_id"] != run_id


def test_a_power_cut(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    field.until(lambda: field.orders_in_work("alpha"))
    field.kill_everything()
    field.start()
    field.check_whole(out, study, undisturbed)


@contextlib.contextmanager
def locked_again_and_again(database, *, held_s, free_s):
    """Somebody else holds the SuperLink's database again and again; yields when he began to each time."""
    over, times = threading.Event(), []

    def hold():
        while not over.is_set():
            with contextlib.closing(sqlite3.connect(database, timeout=60)) as link:
                link.execute("BEGIN EXCLUSIVE")
                times.append(time.monotonic())
                over.wait(held_s)
                link.rollback()
            over.wait(free_s)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


def test_a_database_that_is_locked_for_long(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    with locked_again_and_again(field.workspace.link / "link.db", held_s=20, free_s=3600) as times:
        field.check_whole(out, study, undisturbed)
    assert len(times) == 1


def test_a_slow_database_with_a_large_model(field, undisturbed):
    # 354 MB go to each site and come back: the ECG encoder and decoder of the paper.
    phase = {"task": "ecg_mae", "rounds": 2, "local_steps": 1, "batch_size": 2, "optimiser": {"lr": 1e-4}}
    study = field.small_study(next(SEEDS), preset="paper", phases=[phase])
    out = field.begin(study)
    with locked_again_and_again(field.workspace.link / "link.db", held_s=4, free_s=6) as times:
        result = field.check_whole(out, study, undisturbed)
    assert len(times) > 3
    assert result["rounds"][-1]["bytes_received"] > 3 * 300e6


def test_a_paused_study_resumes_to_the_same_model(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    field.run("cardionets-server", "pause", field.server)
    assert field.outcome(seconds=STUDY_S)["state"] == "paused"
    result = json.loads((out / "result.json").read_text())
    assert (result["status"], result["paused"]["code"]) == ("paused", "study-paused")
    field.run("cardionets-server", "resume", field.server)
    field.check_whole(out, study, undisturbed)


def test_a_study_paused_at_once_resumes_to_the_same_model(field, study, undisturbed):
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    field.run("cardionets-server", "pause", field.server, "--now")
    assert field.outcome(seconds=120)["state"] == "paused"
    field.run("cardionets-server", "resume", field.server)
    field.check_whole(out, study, undisturbed)
