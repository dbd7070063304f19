"""Studies under differential privacy on an in-process grid: what they spend, and what does not leave."""

from __future__ import annotations

import functools
import json
import math
import shutil
from xml.etree import ElementTree

import pytest

from cardionets_core.audit.journal import bodies, verify
from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.errors import DataError, QuorumNotMetError
from cardionets_core.exchange.messages import RoundName
from cardionets_core.privacy.accountant import Mechanism, epsilon_of
from cardionets_core.privacy.ledger import Ledger
from cardionets_core.tasks import make_task, task_of
from cardionets_core.training.private_plan import epsilon_after, noise_of, phase_costs
from client.app import make_app
from client.budget import budget
from client.forecast import forecast
from client.journal import JOURNAL
from client.site import open_site
from client.spending import LEDGER, SPENT, Spending
from server.app import run_study
from server.plan import plan_of
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

STEPS = {"local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}


def private_study(**changes) -> Study:
    content = {
        "name": "private",
        "seed": 4,
        "sites": {"minimum": 2, "deadline_s": 60, "attempts": 1},
        "phases": [
            {"task": "ecg_mae", "rounds": 2, **STEPS},
            {"task": "prevalence", "rounds": 1},
            {"task": "screening", "rounds": 1, "options": {"bootstrap_replicates": 20}, **STEPS},
        ],
        "privacy": {"mechanism": "dp_sgd", "epsilon": 8.0, "deterministic": True},
    }
    return Study.model_validate({**content, **changes})


def run_rounds(study, paths, folder):
    locate = functools.partial(hospital_of_partition, tuple(paths))
    return run_study(LocalGrid([make_app(locate) for _ in paths]), study, folder=folder, track=False)


def ledger_of(path) -> Ledger:
    return Ledger(path.parent / "state" / LEDGER)


def served(cohort, study) -> list[int | None]:
    """Training patients by phase, counted apart from the client."""
    from cardionets_core.tasks.shapes import shape_of

    shape = shape_of(study.models)
    tasks = [task_of(phase, study) for phase in study.phases]
    counts = [cohort.patients(cohort.rows(task.roles[0].needs, "train", shape)) for task in tasks]
    return [count if count >= 5 else None for count in counts]


def test_each_site_spends_what_was_planned_and_no_more(generation, consortium, hospitals, tmp_path):
    study = private_study(generation=generation)
    result = run_rounds(study, hospitals.values(), tmp_path / "run")
    assert result["status"] == "completed"
    tasks = [task_of(phase, study) for phase in study.phases]
    for name, path in hospitals.items():
        costs = phase_costs(study, tasks, patients=served(consortium.cohorts[name], study))
        noise = noise_of(study, costs)
        ledger = ledger_of(path)
        charges = [entry.charge for entry in ledger.entries()]
        assert [(each.phase, each.round) for each in charges] == [
            (cost.phase, number) for cost in costs for number in range(1, cost.rounds + 1)
        ]
        assert all(entry.committed for entry in ledger.entries())
        spent = ledger.spent(delta=1e-5)
        assert spent == epsilon_after(study, costs, noise_multiplier=noise)
        assert 0.9 * 8.0 < spent <= 8.0
        # The same from the definition: steps of a Poisson sample of all patients, and one release of sums.
        by_hand = [
            Mechanism(
                noise_multiplier=noise * (4.0 if cost.task == "prevalence" else 1.0),
                sample_rate=1.0 if cost.task == "prevalence" else min(1.0, 4 / cost.patients),
                steps=1 if cost.task == "prevalence" else 2 * cost.rounds,
            )
            for cost in costs
        ]
        assert spent == epsilon_of(by_hand, delta=1e-5)
        assert ledger.verify() == 2 * len(charges)


def test_the_plan_and_the_budget_agree_with_the_ledger(consortium, hospitals, tmp_path, run):
    study = private_study(phases=private_study().phases[:2])
    given = [
        f"{name}={','.join(str(count or 0) for count in served(cohort, study))}"
        for name, cohort in consortium.cohorts.items()
    ]
    planned = {site["site"]: site for site in plan_of(study, patients=given)["privacy"]["sites"]}
    run_rounds(study, hospitals.values(), tmp_path / "run")
    for name, path in hospitals.items():
        told = run("cardionets-client", "budget", "--site", path, "--format", "json")
        assert told.returncode == 0
        content = json.loads(told.stdout)
        assert content["spent"] == ledger_of(path).spent(delta=1e-5) == planned[name]["epsilon"]
        assert (content["reserved"], content["left"]) == (0.0, 100.0 - content["spent"])
        (found,) = content["studies"]
        assert found["epsilon"] == content["spent"] and found["study"] == study.digest
        phases = planned[name]["phases"]
        assert [(p["phase"], p["task"], p["answers"]) for p in found["phases"]] == [
            (p["phase"], p["task"], p["rounds"]) for p in phases
        ]
        for mine, theirs in zip(found["phases"], phases, strict=True):
            mechanism = Mechanism(
                noise_multiplier=theirs["noise_multiplier"],
                sample_rate=theirs["sample_rate"],
                steps=theirs["steps"],
            )
            assert mine["epsilon"] == epsilon_of([mechanism], delta=1e-5)
        picture = tmp_path / f"{name}.svg"
        table = run("cardionets-client", "budget", "--site", path, "--plot", picture)
        assert "NOT PRIVATE" in table.stdout and f"spent {content['spent']:.3f}" in table.stdout
        root = ElementTree.fromstring(picture.read_text())
        told = "epsilons of parts do not add up: together they would be more than the whole"
        assert (told in table.stdout) == (len(phases) > 1)
        assert f"ledger of {content['ledger']['lines']} lines, head" in table.stdout
        assert root.tag.endswith("svg") and content["curve"][-1]["epsilon"] == content["spent"]
        assert run("cardionets-client", "budget", "--site", path, "--plot", picture).returncode == 2


def test_a_site_that_spent_nothing_has_all_left(hospitals, run):
    told = run("cardionets-client", "budget", "--site", hospitals["alpha"])
    assert told.returncode == 0 and "no private study has trained here yet" in told.stdout
    assert "left 100.000 of 100" in told.stdout
    assert not (hospitals["alpha"].parent / "state" / LEDGER).exists()


def test_neither_loss_nor_seconds_nor_metrics_nor_draws_leave(consortium, hospitals, tmp_path):
    result = run_rounds(private_study(), hospitals.values(), tmp_path / "run")
    for entry in result["rounds"]:
        assert entry.get("pooled", {}) == {} and "test" not in entry
        for row in entry["sites"]:
            assert row.get("loss") is None and "metrics" not in row
            if row["status"] == "trained" and entry["task"] == "ecg_mae":
                cohort = consortium.cohorts[row["site"]]
                # All who might have been drawn, not those who were.
                assert set(row["samples"].values()) == {served(cohort, private_study())[0]}


def test_deterministic_noise_repeats_and_secret_noise_does_not(hospitals, tmp_path):
    study = private_study(phases=private_study().phases[:1])
    privacy = study.privacy.model_copy(update={"deterministic": False})
    secret = study.model_copy(update={"privacy": privacy})

    def digest(asked, name) -> str:
        for path in hospitals.values():
            shutil.rmtree(path.parent / "state", ignore_errors=True)
        return run_rounds(asked, hospitals.values(), tmp_path / name)["model_digest"]

    assert digest(study, "a") == digest(study, "b")
    assert digest(secret, "c") != digest(secret, "d")


def test_a_site_over_its_limit_is_left_out_and_the_others_go_on(hospitals, tmp_path):
    study = private_study(phases=private_study().phases[:1])
    path = hospitals["gamma"]
    text = path.read_text()
    assert text.count("maximum_epsilon: 100.0") == 1
    # Enough for the first round, not for the second.
    path.write_text(text.replace("maximum_epsilon: 100.0", "maximum_epsilon: 8.0"))
    before = Ledger(path.parent / "state" / LEDGER)
    spend_until(before, limit=8.0, leave=0.75 * 8.0)
    result = run_rounds(study, hospitals.values(), tmp_path / "run")
    rows = [{row["site"]: row for row in entry["sites"]} for entry in result["rounds"]]
    assert result["status"] == "completed"
    assert rows[0]["gamma"]["status"] == "trained"
    assert (rows[1]["gamma"]["status"], rows[1]["gamma"]["code"]) == ("left-out", "budget-spent")
    assert [row[name]["status"] for row in rows for name in ("alpha", "beta")] == ["trained"] * 4
    assert len([e for e in before.entries() if e.charge.study == study.digest]) == 1
    assert before.spent(delta=1e-5) <= 8.0


def spend_until(ledger: Ledger, *, limit: float, leave: float) -> None:
    """Another study's rounds, until about ``leave`` of the limit is left."""
    from cardionets_core.privacy.ledger import Limit
    from cardionets_core.privacy.ledger_lines import Charge

    number = 0
    while ledger.spent(delta=1e-5) < limit - leave:
        number += 1
        charge = Charge(
            study="0" * 64,
            name="earlier",
            phase=0,
            task="ecg_mae",
            round=number,
            part="train",
            mechanism=Mechanism(noise_multiplier=3.0, sample_rate=0.2, steps=2),
        )
        ledger.commit(ledger.reserve(charge, [Limit(epsilon=limit, delta=1e-5, where="test")]))


def test_what_the_approval_forecasts_is_what_the_ledger_says_afterwards(hospitals, tmp_path, run):
    study = private_study(phases=private_study().phases[:1])
    path = hospitals["alpha"]
    spend_until(ledger_of(path), limit=100.0, leave=99.0)
    before = forecast(study, read_site(path))
    assert before["enough"] and before["left"] == 100.0 - ledger_of(path).spent(delta=1e-5)
    first = study.model_copy(update={"phases": (study.phases[0].model_copy(update={"rounds": 1}),)})
    assert forecast(first, read_site(path))["after"] != before["after"]
    run_rounds(study, hospitals.values(), tmp_path / "run")
    spent = ledger_of(path).spent(delta=1e-5)
    assert before["after"] == spent == forecast(study, read_site(path))["after"]
    path.write_text(path.read_text().replace("maximum_epsilon: 100.0", "maximum_epsilon: 8.2"))
    (tmp_path / "next.json").write_text(private_study(seed=9).to_json())
    given = ["approve", path.parent, "--package", tmp_path / "next.json", "--yes"]
    told = run("cardionets-client", *given).stdout
    after = forecast(private_study(seed=9), read_site(path))["after"]
    left = f"this site has {8.2 - spent:.3f} of its limit 8.2 left"
    assert f"{left}; with all of this study {after:.3f} would be spent:" in told and after > 8.2
    assert "it may not be finished here" in told


def test_a_round_that_is_asked_again_spends_nothing(hospitals, tmp_path):
    study = private_study(phases=private_study().phases[:1])
    first = run_rounds(study, hospitals.values(), tmp_path / "a")
    spent = {name: ledger_of(path).spent(delta=1e-5) for name, path in hospitals.items()}
    again = run_rounds(study, hospitals.values(), tmp_path / "b")
    assert again["model_digest"] == first["model_digest"]
    assert spent == {name: ledger_of(path).spent(delta=1e-5) for name, path in hospitals.items()}


def test_a_ledger_that_was_lost_or_put_back_is_noticed_and_spends_nothing(hospitals, tmp_path):
    """The journal names the ledger's head at every release, and its own head lies with the coordinator."""
    first, second = (private_study(phases=private_study().phases[:1], seed=seed) for seed in (4, 5))
    one_round = first.model_copy(update={"phases": (first.phases[0].model_copy(update={"rounds": 1}),)})
    run_rounds(one_round, hospitals.values(), tmp_path / "earlier")
    earlier = {name: path.parent / f"{name}.db" for name, path in hospitals.items()}
    for name, path in hospitals.items():
        shutil.copy2(path.parent / "state" / LEDGER, earlier[name])
    run_rounds(first, hospitals.values(), tmp_path / "a")
    for path in hospitals.values():
        told = [body for body in bodies(path.parent / "state" / JOURNAL) if body["event"] == SPENT]
        assert [body["round"] for body in told] == [1, 1, 2]
        assert (told[-1]["ledger_lines"], told[-1]["ledger_head"]) == ledger_of(path).head()
    lost, old, other = hospitals.values()
    for path in (lost, old):
        for file in (path.parent / "state").glob(f"{LEDGER}*"):
            file.unlink()
    shutil.copy2(earlier[old.parent.name], old.parent / "state" / LEDGER)
    with pytest.raises(QuorumNotMetError):
        run_rounds(second, hospitals.values(), tmp_path / "b")
    for path in (lost, old):
        assert "not the one that the journal names" in (path.parent / "client.log").read_text()
        with pytest.raises(DataError, match="journal"):
            budget(read_site(path))
    assert not (lost.parent / "state" / LEDGER).exists() and ledger_of(old).head()[0] == 2
    shutil.copy2(other.parent / "state" / LEDGER, old.parent / "state" / LEDGER)
    with pytest.raises(DataError, match="journal"):
        budget(read_site(old))


def test_a_journal_that_a_crash_tore_is_mended_before_it_is_held_against_the_ledger(hospitals, tmp_path):
    study = private_study(phases=private_study().phases[:1])
    run_rounds(study, hospitals.values(), tmp_path / "run")
    path = hospitals["alpha"]
    journal = path.parent / "state" / JOURNAL
    with journal.open("ab") as handle:
        handle.write(b"0" * 64 + b' {"number":')
    name = RoundName(study_digest=study.digest, phase=0, round=3, attempt=1)
    Spending(open_site(path, check="quick"), study, name=name, seed=1)
    assert [body["event"] for body in bodies(journal)][-1] == "journal-mended" and verify(journal) > 3


@pytest.mark.parametrize(
    "policy",
    [{"required": True}, {"maximum_delta": 1e-7}, {"maximum_epsilon": 1.0}, {"deterministic": False}],
)
def test_a_policy_that_forbids_the_study_s_privacy_is_named(hospitals, tmp_path, policy):
    path = hospitals["gamma"]
    (key,) = policy
    lines = [line for line in path.read_text().splitlines() if not line.strip().startswith(f"{key}:")]
    place = lines.index("  privacy:") + 1
    path.write_text(
        "\n".join([*lines[:place], f"    {key}: {json.dumps(policy[key])}", *lines[place:]]) + "\n"
    )
    study = private_study(phases=private_study().phases[:1])
    if key == "required":
        study = study.model_copy(update={"privacy": type(study.privacy)()})
    result = run_rounds(study, hospitals.values(), tmp_path / "run")
    assert result["status"] == "completed"
    assert not any(row["site"] == "gamma" for entry in result["rounds"] for row in entry["sites"])
    assert f"policy.privacy.{key}" in (path.parent / "client.log").read_text()
    assert not ledger_of(path).entries()


def test_the_noise_of_a_smaller_site_is_larger(consortium):
    study = private_study(phases=private_study().phases[:1])
    tasks = [make_task("ecg_mae", {})]
    noises = [noise_of(study, phase_costs(study, tasks, patients=[count])) for count in (10, 100, 1000)]
    assert noises == sorted(noises, reverse=True) and not math.isclose(noises[0], noises[1])
