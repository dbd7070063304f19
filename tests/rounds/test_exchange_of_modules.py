"""What travels: a module once a site, metrics with the replies of the next round; the model is the same."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from cardionets_core.config.study import Study
from cardionets_core.errors import StudyPausedError
from client.app import make_app
from server.app import run_study
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

NAMES = ("alpha", "beta", "gamma")
PHASE = {"rounds": 3, "local_steps": 2, "batch_size": 8, "optimiser": {"lr": 1e-3}}


def study_of(*phases, trips="one", every=1, **changes):
    return Study.model_validate(
        {
            "name": "travels",
            "seed": 2,
            "sites": {"minimum": 2, "deadline_s": 20, "attempts": 2},
            "evaluation": {"trips": trips, "every_rounds": every},
            "phases": [{**PHASE, **phase} for phase in phases],
            **changes,
        }
    )


def run(study, sites, folder, **options):
    grid = LocalGrid([site.app() for site in sites.values()], **options)
    return run_study(grid, study, folder=folder, track=False)


def told(result, *, but=("seconds", "bytes_sent", "bytes_received")):
    """All that a result says but clocks, bytes and the study's own text."""
    rounds = [
        {
            **{key: value for key, value in entry.items() if key not in but},
            "sites": [
                {k: v for k, v in row.items() if k not in ("bytes", "train_seconds")}
                for row in entry["sites"]
            ],
        }
        for entry in result["rounds"]
    ]
    return {
        "rounds": rounds,
        "summary": result["summary"],
        "modules": result["modules"],
        "sites": result["sites"],
    }


MIXED = (
    {"task": "ecg_mae"},
    {"task": "align", "options": {"loss": "dcco"}},
    {"task": "align", "ema_decay": 0.9, "rounds": 2},
)


@pytest.mark.parametrize("every", [1, 2])
def test_one_trip_tells_the_same_as_two(every, fake_sites, tmp_path):
    found, orders = {}, {}
    for trips in ("one", "two"):
        sites = fake_sites("alpha", "beta") | fake_sites("outside", role="external")
        found[trips] = told(run(study_of(*MIXED, trips=trips, every=every), sites, tmp_path / trips))
        asked = sites["alpha"].asked
        orders[trips] = (
            sum(order.measure for order in asked),
            sum(order.kind == "evaluate" and order.split == "validation" for order in asked),
        )
        assert [order.split for order in sites["outside"].asked if order.kind == "evaluate"] == ["test"] * 3
    assert found["one"] == found["two"]
    on_the_way, apart = orders["one"]
    assert on_the_way == (4 if every == 1 else 2) and orders["two"] == (0, on_the_way + apart)
    # An average is measured by orders of its own; so is the last round of every phase.
    assert apart == (4 if every == 1 else 3)


def test_a_module_is_never_sent_to_a_site_that_holds_it(fake_sites, tmp_path):
    failing = [True]

    def lost(message):
        # The second attempt of a round needs no tensors either.
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 1001 and failing:
            failing.pop()
            return True
        return False

    for trips in ("one", "two"):
        sites = fake_sites(*NAMES) | fake_sites("outside", role="external")
        failing[:] = [True]
        run(study_of(*MIXED, trips=trips), sites, tmp_path / trips, lost=lost)
        for site in sites.values():
            assert len(site.received) == len(set(site.received)), f"{site.name} got a module twice ({trips})"


def test_a_site_that_let_a_module_go_gets_it_again_at_once(fake_sites, tmp_path):
    sites = fake_sites(*NAMES)

    class Forgetful(LocalGrid):
        def push_messages(self, messages):
            messages = list(messages)
            if messages[0].metadata.message_type == "train" and messages[0].metadata.group_id == "2":
                sites["beta"].held.clear()
            return super().push_messages(messages)

    study = study_of({"task": "ecg_mae"}, {"task": "align"}, trips="two")
    whole = run(study, fake_sites(*NAMES), tmp_path / "whole")
    grid = Forgetful([site.app() for site in sites.values()])
    result = run_study(grid, study, folder=tmp_path / "run", track=False)
    assert result["model_digest"] == whole["model_digest"]
    assert all(row["status"] == "trained" for entry in result["rounds"] for row in entry["sites"])
    assert all(entry["attempt"] == 1 for entry in result["rounds"])


def test_metrics_that_are_due_are_not_lost_by_a_pause(fake_sites, tmp_path):
    study, sites = study_of({"task": "ecg_mae"}), fake_sites(*NAMES)
    whole = run(study, fake_sites(*NAMES), tmp_path / "whole")

    class Pausing(LocalGrid):
        def push_messages(self, messages):
            messages = list(messages)
            if messages[0].metadata.message_type == "train":
                (tmp_path / "run" / "requests").mkdir(exist_ok=True)
                (tmp_path / "run" / "requests" / "pause").touch()
            return super().push_messages(messages)

    for _ in range(2):
        with pytest.raises(StudyPausedError):
            run_study(
                Pausing([site.app() for site in sites.values()]), study, folder=tmp_path / "run", track=False
            )
    result = run(study, sites, tmp_path / "run")
    assert told(result) == told(whole)


def test_a_site_that_can_train_and_not_measure_says_why(fake_sites, tmp_path):
    sites = fake_sites(*NAMES)
    real = sites["beta"].answer

    def cannot(order):
        reply = real(order)
        if order.measure:
            kept = {name: value for name, value in reply.sums.items() if not name.startswith("measured/")}
            return dataclasses.replace(reply, sums=kept, measure_code="too-few-patients")
        return reply

    sites["beta"].answer = cannot
    result = run(study_of({"task": "ecg_mae"}), sites, tmp_path)
    first = result["rounds"][0]
    rows = {row["site"]: row for row in first["sites"]}
    assert rows["beta"]["status"] == "trained" and rows["beta"]["measure_code"] == "too-few-patients"
    assert "metrics" in rows["alpha"] and first["pooled"]["n_rows"] == 14


@pytest.mark.parametrize("kind", ["shape", "nan", "names"])
def test_sums_that_are_wrong_cost_the_metrics_and_not_the_training(kind, fake_sites, tmp_path):
    sites = fake_sites(*NAMES)
    real = sites["beta"].answer

    def wrong(order):
        reply = real(order)
        if not order.measure:
            return reply
        sums = dict(reply.sums)
        if kind == "shape":
            sums["measured/n_rows"] = np.zeros(3)
        elif kind == "nan":
            sums["measured/correlation"] = np.array([np.nan])
        else:
            sums["measured/more"] = np.zeros(1)
        return dataclasses.replace(reply, sums=sums)

    sites["beta"].answer = wrong
    result = run(study_of({"task": "ecg_mae"}), sites, tmp_path)
    rows = {row["site"]: row for row in result["rounds"][0]["sites"]}
    assert rows["beta"]["status"] == "trained" and rows["beta"]["measure_code"] == "reply-refused"
    whole = run(study_of({"task": "ecg_mae"}), fake_sites(*NAMES), tmp_path / "whole")
    assert result["model_digest"] == whole["model_digest"]


# -- real sites ----------------------------------------------------------------------------------------------


def test_one_trip_and_two_give_the_same_model_and_metrics_on_real_sites(consortium, study, tmp_path):
    """Training, measuring, the sites' own code and data: bit for bit."""
    found = {}
    for trips in ("one", "two"):
        paths = []
        for name, path in consortium.paths.items():
            shutil.copytree(path.parent, tmp_path / trips / name, copy_function=shutil.copy2)
            paths.append(tmp_path / trips / name / "site.yaml")
        changed = study.model_copy(
            update={"evaluation": study.evaluation.model_copy(update={"trips": trips})}
        )
        locate = functools.partial(hospital_of_partition, tuple(paths))
        grid = LocalGrid([make_app(locate) for _ in paths])
        found[trips] = told(run_study(grid, changed, folder=tmp_path / f"run-{trips}", track=False))
    assert found["one"] == found["two"]
