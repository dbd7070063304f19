"""``cardionets-server track``: what was missed is sent, and what it says is what is there."""

import json

import pytest

from cardionets_core.errors import ConfigError, UsageError
from cardionets_core.service.state import only_one
from server.tracking.later import LaterRequest, run_folder_of, send_later, state_of
from server.tracking.note import LOCK, TRACKED
from server.tracking.reasons import reason_of

STUDY = {
    "name": "s",
    "seed": 1,
    "preset": "nano",
    "aggregation": {"strategy": "fedavg"},
    "phases": [{"task": "ecg_mae", "rounds": 1}],
}


def result(**changes):
    entry = {"phase": 0, "task": "ecg_mae", "round": 1, "attempt": 1, "seconds": 1.5, "bytes_received": 10}
    entry |= {"primary": "correlation", "pooled": {"correlation": 0.25, "recall@5": 0.5}}
    entry["sites"] = [{"site": "a", "loss": 0.75, "metrics": {"correlation": 0.125}}]
    content = {"status": "completed", "study": STUDY, "study_digest": "ab" * 32, "model_digest": "cd" * 32}
    return content | {"sites": [{"site": "a"}], "rounds": [entry], "summary": {}, "versions": {}, **changes}


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "runs" / "s-abababababab"
    found.mkdir(parents=True)
    (found / "study.json").write_text(json.dumps(STUDY))
    (found / "result.json").write_text(json.dumps(result(status="paused")))
    return found


def test_a_workspace_means_its_newest_study(folder, tmp_path):
    assert run_folder_of(tmp_path) == folder == run_folder_of(folder)
    with pytest.raises(UsageError, match="no study was begun"):
        run_folder_of(folder / "nothing")
    with pytest.raises(UsageError, match="there is no such folder"):
        run_folder_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no study was begun in this folder"):
        run_folder_of(tmp_path / "empty")


def test_how_to_look_asks_mlflow_for_one_worker_and_says_where_the_study_is(run, folder):
    told = run("cardionets-server", "track", folder, "--dry-run").stdout
    assert f"look: mlflow ui --workers 1 --backend-store-uri sqlite:///{folder / 'mlflow.db'}\n" in told
    assert '"Training runs"' in told


def test_how_a_study_stands_is_what_its_result_says(folder):
    assert state_of(folder) == "paused"
    (folder / "result.json").write_text("{")
    assert state_of(folder) == "running"


def test_a_dry_run_says_what_is_missing_and_sends_nothing(run, folder):
    ended = run("cardionets-server", "track", folder, "--dry-run", "--format", "json")
    content = json.loads(ended.stdout)
    assert ended.returncode == 0 and content["status"] == "behind" and content["missing"] == ["rounds"]
    assert (content["rounds"], content["rounds_sent"], content["schema_version"]) == (1, 0, 1)
    assert not (folder / TRACKED).exists() and not (folder / "mlflow.db").exists()


def test_a_study_that_sends_for_itself_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr("server.tracking.later.OTHER_S", 0.0)
    with only_one(folder, name=LOCK), pytest.raises(UsageError, match="is running already"):
        send_later(LaterRequest(folder=folder))


def test_a_password_is_refused_before_anything_is_sent(run, folder):
    ended = run("cardionets-server", "track", folder, "--uri", "http://me:hunter2@127.0.0.1:1")
    assert ended.returncode == ConfigError.exit_code and "hunter2" not in ended.stdout + ended.stderr


def test_a_torn_note_is_told(run, folder):
    (folder / TRACKED).write_text("{")
    ended = run("cardionets-server", "track", folder)
    assert ended.returncode == 7 and "tracked.json" in ended.stderr


def test_a_reason_holds_no_password_and_one_line():
    text = reason_of(ValueError("\n no route to http://me:hunter2@host/x\nmore"))
    assert text == "ValueError: no route to http://host/x"


@pytest.mark.filterwarnings("ignore")
def test_a_dead_server_is_told_with_its_exit_code(run, folder):
    """Port 9 of loopback takes no connection."""
    ended = run("cardionets-server", "track", folder, "--uri", "http://127.0.0.1:9", "--format", "json")
    content = json.loads(ended.stdout)
    assert ended.returncode == content["exit_code"] == 6
    assert content["status"] == "behind" and "connection refused" in content["reason"]
