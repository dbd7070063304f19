"""What the keepers do to keys and runs, and what the coordinator reads; Flower's command line is faked."""

import errno
import json
import os
import time
from types import SimpleNamespace

import pytest
import yaml

from cardionets_core.config.study import read_study
from cardionets_core.config.tracking import Tracking
from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import write_json
from cardionets_core.errors import ConfigError, ServiceDownError, UsageError
from cardionets_core.service.state import identity, only_one
from server import studying
from server.commands import service
from server.commands.answer import Format
from server.link import admission
from server.link.admission import AdmittedSites, Heartbeats, last_heard
from server.link.guard import HEARTBEAT
from server.link.keeper import MOST_SUBMISSIONS, KeySync, StudyKeeper
from server.link.wanted import RUN_LOCK, Wanted, read_wanted, write_wanted
from server.overview import overview, overview_lines
from server.provision.admission import provision, revoke
from server.provision.registry import read_registry
from server.studying import ask_to_pause, begin, go_on, running_study
from server.tracking.settings import read_settings
from server.workspace_folder import make_workspace

STUDY = {"name": "s", "seed": 1, "phases": [{"task": "ecg_mae", "rounds": 1}]}


class FakeControl:
    """Flower's command line: remembers what it was told."""

    def __init__(self):
        self.registered, self.unregistered, self.submitted, self.stopped = [], [], [], []
        self.status = "running"

    def register(self, key, *, name):
        if name in self.registered:
            raise ServiceDownError("Public key already in use.")
        self.registered.append(name)
        return f"node-{name}"

    def unregister(self, node_id):
        self.unregistered.append(node_id)

    def submit(self, app, config):
        self.submitted.append(dict(config))
        return f"run-{len(self.submitted)}"

    def run_status(self, run_id):
        return self.status

    def stop(self, run_id):
        self.stopped.append(run_id)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    make_workspace(tmp_path / "hub", address="127.0.0.1:9092", consortium="heart")
    found = Workspace(tmp_path / "hub")
    provision(found, ["alpha", "beta"])
    return found


def served(workspace):
    """The service runs: this process stands for it."""
    content = {"supervisor": identity(os.getpid()), "status": "ok", "processes": {}}
    write_json(workspace.state / "service.json", content)


@pytest.fixture
def control():
    return FakeControl()


@pytest.fixture
def wanted(workspace) -> Wanted:
    found = Wanted(
        study="s", study_digest="d", out=workspace.runs / "s", app=workspace.code / "app",
        run_id="run-0", submitted_s=time.time() - 1000, tries=1,
    )  # fmt: skip
    found.out.mkdir(parents=True)
    write_wanted(workspace, found)
    return found


def finish_round(wanted, name):
    (wanted.out / "checkpoints" / name).mkdir(parents=True)


def test_keys_of_admitted_sites_are_registered_once_and_revoked_ones_taken_out(workspace, control):
    sync = KeySync(workspace, control, tell=lambda text: None)
    sync()
    sync()
    assert control.registered == ["alpha", "beta"]
    revoke(workspace, "alpha", reason="test")
    sync()
    sync()
    assert control.unregistered == ["node-alpha"]


def test_a_registration_whose_note_was_lost_is_no_error(workspace, control):
    KeySync(workspace, control, tell=lambda text: None)()
    again = KeySync(workspace, control, tell=lambda text: None)
    again.forget()
    again()
    assert control.registered == ["alpha", "beta"]


def test_the_door_judges_by_the_registry_of_the_moment(workspace):
    judge = AdmittedSites(workspace)
    key = next(row.public_key for row in read_registry(workspace).rows if row.site == "alpha").encode()
    assert judge(key) == ("alpha", "")
    assert judge(b"") == ("", "not-admitted") and judge(b"nonsense") == ("", "not-admitted")
    revoke(workspace, "alpha", reason="test")
    assert judge(key)[1] == "not-admitted"


def test_the_door_refuses_a_certificate_that_has_ended(workspace):
    registry = workspace.trust / "sites.json"
    rows = json.loads(registry.read_text())
    for row in rows:
        row["not_after"] = "2020-01-01T00:00:00Z"
    registry.write_text(json.dumps(rows))
    assert AdmittedSites(workspace)(rows[0]["public_key"].encode())[1] == "certificate-invalid"


def test_a_run_that_goes_on_is_left_alone(workspace, control, wanted):
    StudyKeeper(workspace, control, tell=lambda text: None)()
    assert control.submitted == [] and read_wanted(workspace) == wanted


@pytest.mark.parametrize("status", ["finished:failed", "finished:stopped", "unknown"])
def test_a_run_that_died_goes_on_as_a_new_one(workspace, control, wanted, status):
    control.status = status
    finish_round(wanted, "00-00001")
    StudyKeeper(workspace, control, tell=lambda text: None)()
    assert control.submitted[0]["out"] == str(wanted.out)
    after = read_wanted(workspace)
    assert (after.run_id, after.wanted, after.tries, after.rounds) == ("run-1", "run", 1, "00-00001")


def test_a_run_whose_process_still_writes_is_waited_for(workspace, control, wanted):
    control.status = "finished:failed"
    with only_one(wanted.out, name=RUN_LOCK):
        StudyKeeper(workspace, control, tell=lambda text: None)()
        assert control.submitted == []
    StudyKeeper(workspace, control, tell=lambda text: None)()
    assert len(control.submitted) == 1


def test_a_study_that_keeps_dying_without_a_round_is_given_up(workspace, control, wanted):
    control.status = "finished:failed"
    keeper = StudyKeeper(workspace, control, tell=lambda text: None)
    for _ in range(MOST_SUBMISSIONS + 2):
        keeper()
        now = read_wanted(workspace)
        write_wanted(workspace, now.changed(submitted_s=now.submitted_s - 1000))
    assert len(control.submitted) == MOST_SUBMISSIONS - 1
    ended = read_wanted(workspace)
    assert (ended.wanted, ended.outcome) == ("nothing", "failed") and "logs" in ended.why
    assert overview(workspace)["study"]["state"] == "failed"


def test_it_waits_longer_before_each_further_try(workspace, control, wanted):
    control.status = "finished:failed"
    write_wanted(workspace, wanted.changed(tries=4, submitted_s=time.time() - 10))
    keeper = StudyKeeper(workspace, control, tell=lambda text: None)
    keeper()
    assert control.submitted == [], "the pause before the fifth try is 16 s"
    write_wanted(workspace, wanted.changed(tries=4, submitted_s=time.time() - 17))
    keeper()
    assert len(control.submitted) == 1


@pytest.mark.parametrize("outcome", ["completed", "paused"])
def test_an_outcome_that_the_run_wrote_ends_what_is_wanted(workspace, control, wanted, outcome):
    control.status = "finished:completed"
    why = {"paused": {"code": "quorum-not-met", "what": "too few"}} if outcome == "paused" else {}
    write_json(wanted.out / "result.json", {"status": outcome, **why})
    StudyKeeper(workspace, control, tell=lambda text: None)()
    ended = read_wanted(workspace)
    assert (ended.wanted, ended.outcome) == ("nothing", outcome) and control.submitted == []
    assert ended.why == ("too few" if outcome == "paused" else "")


def test_an_older_result_is_not_that_of_this_run(workspace, control, wanted):
    control.status = "finished:failed"
    write_json(wanted.out / "result.json", {"status": "paused", "paused": {}})
    os.utime(wanted.out / "result.json", (wanted.submitted_s - 50, wanted.submitted_s - 50))
    StudyKeeper(workspace, control, tell=lambda text: None)()
    assert len(control.submitted) == 1


def test_a_study_is_not_begun_without_the_service(workspace):
    with pytest.raises(ServiceDownError, match="does not run"):
        begin(workspace, initial=None, track=False)
    with pytest.raises(ServiceDownError, match="does not run"):
        go_on(workspace)


def test_only_the_study_whose_plan_was_approved_is_begun(workspace, monkeypatch):
    served(workspace)
    workspace.study_yaml.write_text(yaml.safe_dump(STUDY))
    begun = []
    monkeypatch.setattr(studying, "_begin", lambda workspace, study, **options: begun.append(study.seed))
    with pytest.raises(ConfigError, match="not approved yet"):
        begin(workspace, initial=None, track=False)
    begin(workspace, initial=None, track=False, approve=True)
    begin(workspace, initial=None, track=False)
    workspace.study_yaml.write_text(yaml.safe_dump(STUDY | {"seed": 2}))
    with pytest.raises(ConfigError, match="seed: 1 -> 2"):
        begin(workspace, initial=None, track=False)
    options = {f"o{number:02d}": 1 for number in range(20)}
    content = STUDY | {"phases": [STUDY["phases"][0] | {"options": options}], "name": "other"}
    content |= {"privacy": {"mechanism": "dp_sgd", "epsilon": 2.0}}
    workspace.study_yaml.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"privacy.mechanism: none -> dp_sgd.*; and [0-9]+ more") as told:
        begin(workspace, initial=None, track=False)
    assert told.value.what.index("name: ") < told.value.what.index("privacy.")
    assert begun == [1, 1]


def test_the_run_folder_says_where_the_study_is_mirrored_to(workspace, monkeypatch):
    """As server.yaml does when it is begun or gone on with; the sites are not told."""
    served(workspace)
    phase = {"task": "ecg_mae", "rounds": 1, "local_steps": 1, "batch_size": 2, "optimiser": {"lr": 1e-3}}
    workspace.study_yaml.write_text(yaml.safe_dump(STUDY | {"phases": [phase]}))
    monkeypatch.setattr(studying, "_submit", lambda workspace, wanted: wanted)
    monkeypatch.setattr("server.bundle.build_bundle", lambda workspace: SimpleNamespace(app=workspace.code))
    config = yaml.safe_load(workspace.server_yaml.read_text())
    for uri in ("http://127.0.0.1:5000", ""):
        workspace.server_yaml.write_text(yaml.safe_dump(config | {"tracking": {"uri": uri}}))
        wanted = begin(workspace, initial=None, track=True, approve=True)
        assert read_settings(wanted.out) == Tracking(uri=uri)


def test_the_study_that_runs_is_told_from_another(workspace, wanted):
    workspace.study_yaml.write_text(yaml.safe_dump(STUDY))
    assert running_study(workspace) is None
    digest = read_study(workspace.study_yaml).digest
    this = wanted.changed(study_digest=digest)
    write_wanted(workspace, this)
    assert running_study(workspace) == this
    write_wanted(workspace, this.changed(wanted="nothing", outcome="paused"))
    assert running_study(workspace) is None


def test_ctrl_c_while_following_says_that_the_study_goes_on(workspace, monkeypatch, capsys):
    def interrupted(workspace, *, tell):
        raise KeyboardInterrupt

    monkeypatch.setattr("server.live.follow", interrupted)
    with pytest.raises(SystemExit) as ended:
        service._follow(workspace, Format.table)
    assert ended.value.code == 130 and "the study goes on" in capsys.readouterr().err


def test_a_second_study_is_not_begun_while_one_runs(workspace, wanted):
    served(workspace)
    with pytest.raises(UsageError, match="runs already"):
        begin(workspace, initial=None, track=False)


@pytest.mark.parametrize(
    "told, has_result, said",
    [("running", False, "running"), ("completed", False, "starting"), ("completed", True, "ending")],
)
def test_the_state_is_that_of_the_run_that_is_wanted(workspace, wanted, told, has_result, said):
    """What an earlier run left, or one that has not let go yet, is not taken for the end."""
    wanted.out.mkdir(parents=True, exist_ok=True)
    write_json(wanted.out / "status.json", {"state": told, "sites": []})
    if has_result:
        write_json(wanted.out / "result.json", {"status": told})
    served(workspace)
    assert overview(workspace)["study"]["state"] == said


def test_a_run_that_is_ending_is_waited_for(workspace, wanted, monkeypatch):
    served(workspace)
    write_json(wanted.out / "result.json", {"status": "completed"})
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            write_wanted(workspace, wanted.changed(wanted="nothing", outcome="completed"))

    def beyond(study, initial):
        raise UsageError("it goes on")

    monkeypatch.setattr(studying.time, "sleep", sleep)
    monkeypatch.setattr(studying, "_check", beyond)
    with pytest.raises(UsageError, match="it goes on"):
        begin(workspace, initial=None, track=False, approve=True)
    assert len(slept) == 3


def test_a_pause_is_a_request_in_the_run_folder(workspace, wanted):
    ask_to_pause(workspace)
    assert (wanted.out / "requests" / "pause").exists()
    write_wanted(workspace, wanted.changed(wanted="nothing", outcome="completed"))
    with pytest.raises(UsageError, match="no study runs"):
        ask_to_pause(workspace)


def test_status_tells_admitted_connected_configured_and_trained_apart(workspace, wanted):
    Heartbeats(workspace).note("alpha", HEARTBEAT, time.time())
    told = {
        "state": "running", "task": "ecg_mae", "phase": 1, "phases": 2, "round": 3, "rounds": 5,
        "sites": [{"site": "alpha", "phases": {"ecg_mae": "serves"}, "last_round": 2, "last_phase": 1,
                   "code": "", "patients": {"train": 7, "test": 2}, "role": "member"}],
        "primary": {"name": "r2", "higher_is_better": True, "values": [{"round": 1, "value": 0.25}]},
        "waiting_for": {"reason": "train", "until_s": 0.0, "sites": [{"site": "alpha"}]},
    }  # fmt: skip
    write_json(wanted.out / "status.json", told)
    content = overview(workspace)
    alpha, beta = content["sites"]
    assert (alpha["connected"], alpha["configured"], alpha["trained"]) == (True, True, "round 2 of phase 1")
    assert (beta["connected"], beta["configured"], beta["heartbeat_s_ago"]) == (False, False, None)
    text = "\n".join(overview_lines(content))
    assert "beta: admitted · never heard · not configured for this phase yet" in text
    for word in ("not running", "never heard", "9 patients", "round 3/5", "r2: 0.2500 (higher is better)",
                 "stopped", "goes on when the service does"):  # fmt: skip
        assert word in text
    assert "waits for" not in text, "without the service nothing waits"
    served(workspace)
    assert "waits for alpha" in "\n".join(overview_lines(overview(workspace)))
    late = overview(workspace, now_s=time.time() + 100)["sites"][0]
    assert not late["connected"]


def test_a_site_that_sits_a_phase_out_or_has_not_approved_is_told_with_what_to_do(workspace, wanted):
    served(workspace)
    told = {"state": "running", "task": "align", "phase": 1, "sites": [
        {"site": "alpha", "phases": {"align": "phase-not-permitted"}, "code": ""},
        {"site": "beta", "phases": {}, "code": "study-not-approved"},
    ]}  # fmt: skip
    write_json(wanted.out / "status.json", told)
    content = overview(workspace)
    text = "\n".join(overview_lines(content))
    assert "sits this phase out (phase-not-permitted)" in text and "not configured for this phase yet" in text
    (found,) = content["failures"]
    assert found["where"] == "beta" and "cardionets-client approve" in found["remedy"]


def test_a_site_whose_budget_is_spent_is_told_with_what_to_do(workspace, wanted):
    served(workspace)
    sites = [{"site": "north", "phases": {"align": "serves"}, "code": "budget-spent"}]
    write_json(wanted.out / "status.json", {"state": "running", "task": "align", "phase": 1, "sites": sites})
    lines = overview_lines(overview(workspace))
    place = lines.index("! north: a further round would pass its epsilon")
    assert "raise the limit or leave the study" in lines[place + 1]


def test_sites_of_a_study_that_is_over_are_not_waited_for(workspace, wanted):
    write_json(wanted.out / "status.json", {"state": "completed", "task": "align", "sites": []})
    assert "not configured for this phase yet" in "\n".join(overview_lines(overview(workspace)))
    write_wanted(workspace, wanted.changed(wanted="nothing", outcome="completed"))
    text = "\n".join(overview_lines(overview(workspace)))
    assert "completed" in text and "configured" not in text


def test_a_pause_that_is_asked_for_and_one_that_is_over_are_told_apart(workspace, wanted):
    served(workspace)
    failure = {"code": "study-paused", "what": "the coordinator paused", "where": "study", "remedy": "resume"}
    write_json(
        wanted.out / "status.json", {"state": "paused", "failure": failure, "left_s": 9.0, "sites": []}
    )
    content = overview(workspace)
    assert (content["study"]["state"], content["failures"]) == ("starting", [])
    ask_to_pause(workspace)
    text = "\n".join(overview_lines(overview(workspace)))
    assert "pauses after the round that runs" in text and " left" not in text


def test_the_cause_of_a_pause_stands_in_the_status(workspace, wanted):
    failure = {"code": "quorum-not-met", "what": "1 site(s) served", "where": "round 2", "remedy": "mend"}
    write_json(wanted.out / "status.json", {"state": "paused", "failure": failure, "sites": []})
    write_wanted(workspace, wanted.changed(wanted="nothing", outcome="paused", why="1 site(s) served"))
    (found,) = overview(workspace)["failures"]
    assert (found["where"], found["what"], found["remedy"]) == ("round 2", "1 site(s) served", "mend")


def test_a_disk_that_takes_nothing_costs_no_site_its_answer(workspace, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    heartbeats = Heartbeats(workspace)
    with monkeypatch.context() as patched:
        patched.setattr(admission, "write_json", full)
        heartbeats.note("alpha", HEARTBEAT, 5.0)
    assert last_heard(workspace) == {}
    monkeypatch.setattr(admission, "WRITE_EVERY_S", -1.0)
    heartbeats.note("beta", HEARTBEAT, 6.0)
    assert set(last_heard(workspace)) == {"alpha", "beta"}


def test_last_heard_survives_a_restart(workspace):
    Heartbeats(workspace).note("alpha", HEARTBEAT, 5.0)
    Heartbeats(workspace).note("beta", "/v1/fleet/pull-messages", 6.0)
    assert last_heard(workspace)["alpha"]["heartbeat_s"] == 5.0
