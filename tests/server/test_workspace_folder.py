"""A workspace from nothing, its plan, and what changed since the last approval."""

import json
import stat

import pytest
import yaml

from cardionets_core.config.study import Privacy, SecureAggregation, Study, read_study
from cardionets_core.config.workspace import ServerConfig, Workspace
from cardionets_core.errors import DataError
from server.approved_plans import changes, last_approved
from server.plan import plan_lines, plan_of
from server.provision.admission import provision
from server.study_files import find_study


@pytest.fixture
def home(run, tmp_path):
    done = run("cardionets-server", "init", tmp_path / "home", "--address", "hub.example:9092",
               "--consortium", "heart", "--format", "json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path / "home"


def answer(run, *arguments, code=0):
    done = run("cardionets-server", *arguments, "--format", "json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_templates_hold_every_key_with_its_default(home):
    config = Workspace(home).config()
    assert config == ServerConfig(consortium="heart", address="hub.example:9092")
    server, study = (home / "server.yaml").read_text(), (home / "study.yaml").read_text()
    assert [name for name in ServerConfig.model_fields if f"\n{name}:" not in server] == []
    assert [name for name in Study.model_fields if f"\n{name}:" not in study] == []
    plain = read_study(home / "study.yaml")
    for name in (
        "privacy",
        "secure_aggregation",
        "evaluation",
        "exchange",
        "checkpoints",
        "reply_bounds",
        "aggregation",
    ):
        assert getattr(plain, name) == Study.model_fields[name].default


def test_init_overwrites_nothing_and_says_what_is_there(run, home):
    (home / "study.yaml").write_text("mine: true\n")
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    again = answer(run, "init", home)
    assert again["made"] == [] and {"server.yaml", "study.yaml", "README.md", ".gitignore"} <= set(
        again["kept"]
    )
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before
    assert answer(run, "init", home, "--address", "other:1", code=2)["error"]["code"] == "usage"
    (home / "README.md").unlink()
    assert answer(run, "init", home)["made"] == ["README.md"]


def test_a_second_coordinator_on_a_machine_is_given_other_ports(run, tmp_path):
    ports = ["--inner-port", 9111, "--health-port", 9112]
    answer(run, "init", tmp_path / "b", "--address", "127.0.0.1:9292", *ports)
    config = Workspace(tmp_path / "b").config()
    assert (config.outer_port, config.inner_port, config.health_port) == (9292, 9111, 9112)
    assert answer(run, "init", tmp_path / "b", *ports)["made"] == []
    error = answer(run, "init", tmp_path / "b", "--inner-port", 9113, code=2)["error"]
    assert error["where"].endswith("inner_port") and "9111, not 9113" in error["what"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--address", "nowhere"], "give HOST:PORT, such as hub.example.org:9092 (found 'nowhere')"),
        (["--address", "a:99999"], "the port lies in 1 to 65535"),
        (["--consortium", "A b"], "lower-case letters, digits and hyphens"),
        (["--health-port", "9101"], "three different ones"),
    ],
)
def test_a_wrong_address_or_name_makes_nothing_and_is_told_in_words(run, tmp_path, options, words):
    error = answer(run, "init", tmp_path / "home", *options, code=3)["error"]
    assert words in error["what"] and error["where"] == options[0]
    assert not (tmp_path / "home").exists()


def test_secret_folders_are_closed_and_ignored(home):
    ignored = (home / ".gitignore").read_text()
    for name in ("trust", "kits", "link"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o700 and f"/{name}/\n" in ignored
    assert all(f"/{name}/\n" in ignored for name in ("runs", "logs", "state"))


def test_the_plan_of_a_workspace_tells_what_changed_since_it_was_approved(run, home):
    first = answer(run, "plan", home)
    assert first["approved"] == {"changes": [], "digest": None, "is_this": False, "recorded": False}
    rounds = sum(phase["rounds"] for phase in first["phases"])
    # Modules out and back, sums, and what is measured: after each round, and once more on test patients.
    bytes_ = sum(
        p["rounds"]
        * (p["bytes_per_round_and_site"] + p["sum_bytes_per_round_and_site"] + p["measured_bytes_each_time"])
        + p["measured_bytes_each_time"] + p["last_model_bytes_per_site"] + p["frozen_bytes_once_per_site"]
        for p in first["phases"]
    )  # fmt: skip
    assert first["totals"] == {"rounds": rounds, "bytes_per_site": bytes_}
    assert first["privacy"] == {"mechanism": "none"} and first["initial"] == {}
    assert answer(run, "plan", home, "--approve")["approved"]["recorded"]
    assert not answer(run, "plan", home, "--approve")["approved"]["recorded"]
    assert answer(run, "plan", home)["approved"]["is_this"]
    study = home / "study.yaml"
    study.write_text(
        study.read_text().replace("seed: 1\n", "seed: 2\n").replace("rounds: 1\n", "rounds: 4\n")
    )
    since = answer(run, "plan", home)["approved"]
    assert since["digest"] == first["study_digest"] and not since["is_this"]
    assert since["changes"] == [
        {"key": "phases.4.rounds", "was": 1, "is": 4}, {"key": "seed", "was": 1, "is": 2}
    ]  # fmt: skip
    told = run("cardionets-server", "plan", home).stdout
    assert "seed: 1 -> 2" in told and "phases.4.rounds: 1 -> 4" in told


PRIVATE = {"mechanism": "dp_sgd", "epsilon": 8.0}


def private_study(home, **changes):
    content = yaml.safe_load((home / "study.yaml").read_text())
    phase = {"task": "ecg_mae", "rounds": 2, "local_steps": 4, "optimiser": {"lr": 1e-3}}
    content |= {"phases": [phase], "privacy": PRIVATE} | changes
    (home / "study.yaml").write_text(yaml.safe_dump(content))


def test_the_plan_of_a_private_study_says_once_that_nothing_is_measured(run, home):
    private_study(home)
    told = run("cardionets-server", "plan", home, "--patients", "riverside=100")
    assert "neither losses nor metrics leave the sites" in told.stdout, told.stderr
    assert "each time it is measured" not in told.stdout


def test_with_secret_sums_a_private_study_is_measured_in_them():
    key = "ssh-ed25519 AAAA"
    secure = SecureAggregation.model_construct(threshold=2, roster={"north": key, "south": key})
    one = read_study(find_study("demo"))
    privacy = Privacy.model_validate(PRIVATE)
    phases = tuple(phase for phase in one.phases if phase.task == "ecg_mae")
    study = one.model_copy(update={"privacy": privacy, "phases": phases, "secure_aggregation": secure})
    told = "\n".join(plan_lines(plan_of(study)))
    assert "MB of sums each time it is measured" in told and "in secret sums alone" in told
    assert "neither losses nor metrics" not in told


def test_patients_of_a_site_that_is_none_are_refused_with_a_guess(run, home):
    private_study(home)
    assert answer(run, "plan", home, "--patients", "nroth=41")["privacy"]["sites"][0]["site"] == "nroth"
    provision(Workspace(home), ["north", "south"])
    error = answer(run, "plan", home, "--patients", "nroth=41", code=2)["error"]
    assert "did you mean 'north'?" in error["what"] and error["where"] == "--patients"
    assert answer(run, "plan", home, "--patients", "north=41")["privacy"]["sites"][0]["site"] == "north"
    alone = answer(run, "plan", home / "study.yaml", "--patients", "nroth=41")
    assert alone["privacy"]["sites"][0]["site"] == "nroth"


def test_half_the_bytes_of_the_updates_travel_in_bf16_and_the_orders_as_before(run, home):
    full = answer(run, "plan", home)["phases"]
    study = home / "study.yaml"
    study.write_text(study.read_text().replace("precision: fp32", "precision: bf16"))
    half = answer(run, "plan", home)["phases"]
    for before, now in zip(full, half, strict=True):
        # The order is half of it; a task that adds sums has no update.
        share = 1.0 if before["task"] == "probe" else 0.75
        assert now["bytes_per_round_and_site"] == share * before["bytes_per_round_and_site"]


def test_changes_are_none_for_equals_and_mirror_when_swapped(home):
    one = read_study(home / "study.yaml")
    other = one.model_copy(update={"phases": one.phases[:1], "seed": 9})
    assert changes(one, one) == []
    forth, back = changes(one, other), changes(other, one)
    assert [(c["key"], c["was"], c["is"]) for c in forth] == [(c["key"], c["is"], c["was"]) for c in back]
    assert {"key": "phases.2", "was": "cmr_mae", "is": "(absent)"} in forth


def test_an_approval_that_was_touched_is_told(run, home):
    answer(run, "plan", home, "--approve")
    place = Workspace(home)
    (kept,) = (place.state / "plans").iterdir()
    kept.write_text(kept.read_text().replace('"seed":1', '"seed":3'))
    with pytest.raises(DataError, match="approved last"):
        last_approved(place)
    answer(run, "plan", home, code=4)


def test_a_study_alone_cannot_be_approved_and_a_bare_folder_is_no_workspace(run, home, tmp_path):
    assert answer(run, "plan", "demo", "--approve", code=2)["error"]["where"] == "--approve"
    assert "init" in answer(run, "plan", tmp_path, code=3)["error"]["remedy"]
