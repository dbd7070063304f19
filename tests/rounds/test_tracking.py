"""Whole studies with their mirror: MLflow's history is the result's, point by point, once each."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections import Counter

import pytest

from cardionets_core.config.tracking import Tracking
from cardionets_core.errors import QuorumNotMetError
from server.app import run_study
from server.tracking.later import LaterRequest, send_later
from server.tracking.points import measured_points, metric_name, round_points
from server.tracking.settings import STORE, write_settings
from simulation.local_grid import LocalGrid

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PATIENCE_S = 120.0


class Killed(BaseException):
    """The process is gone."""


def run(study, sites, folder, *, track=True, progress=lambda event: None):
    grid = LocalGrid([site.app() for site in sites.values()])
    return run_study(grid, study, folder=folder, track=track, progress=progress)


def client_of(uri):
    """With its own registry: another test may have set one for the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def runs_of(client, name="quick"):
    """The study's run and its children in the order of phases."""
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    return parents[0], sorted(children, key=lambda run: int(run.data.tags["phase"]))


def assert_holds(client, result):
    """Every point of the result's rounds is there, once, and no other."""
    parent, children = runs_of(client, result["study"]["name"])
    expected, found = Counter(), Counter()
    for entry in result["rounds"]:
        for name, value in {**round_points(entry), **measured_points(entry)}.items():
            expected[(entry["phase"], metric_name(name), entry["round"], value)] += 1
    for index, child in enumerate(children):
        for name in child.data.metrics:
            for point in client.get_metric_history(child.info.run_id, name):
                found[(index, name, point.step, point.value)] += 1
    assert found == expected
    assert len(children) == len(result["study"]["phases"])
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    return parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def black_hole():
    """A server that takes every connection and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        held = []

        def swallow():
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=swallow, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for connection in held:
            connection.close()


class MlflowServer:
    """A real tracking server on loopback, with its own store."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        folder.mkdir()
        self.start()

    def start(self):
        command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.folder / 'm.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artefacts"), "--workers", "1"]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.2)
        raise TimeoutError((self.folder / "log").read_text()[-3000:])

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    found = MlflowServer(tmp_path / "server")
    yield found
    found.kill()


def noted(folder, label):
    """What ``tracked.json`` says of a store."""
    with contextlib.suppress(OSError):
        return json.loads((folder / "tracked.json").read_text())["stores"].get(label)
    return None


def rounds_sent(folder, label):
    note = noted(folder, label)
    return sum(phase["first"] for phase in note["phases"]) if note else 0


def wait_until(true):
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_store_in_the_folder_holds_the_study(fake_sites, quick, tmp_path):
    folder = tmp_path / "run"
    result = run(quick, fake_sites("alpha", "beta"), folder)
    assert result["tracking"]["status"] == "written", result["tracking"]
    assert result == json.loads((folder / "result.json").read_text())
    client = client_of(f"sqlite:///{folder / STORE}")
    parent = assert_holds(client, result)
    params = parent.data.params
    assert params["study_digest"] == result["study_digest"]
    assert params["model_digest"] == result["model_digest"]
    assert params["phases.1.optimiser.lr"] == "0.001" and params["seed"] == "11"
    assert parent.data.tags["cardionets.state"] == "completed"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"study.json", "result.json"}
    version = client.get_model_version_by_alias("quick", "newest")
    assert version.tags["model_digest"] == result["model_digest"] and "Model card" in version.description
    assert version.run_id == parent.info.run_id
    # Nothing is left to send, and asking again makes no second version.
    again = send_later(LaterRequest(folder=folder))
    assert again["status"] == "written" and again["rounds_sent"] == again["rounds"] == 3
    assert_holds(client, result)
    assert len(client.search_model_versions("name = 'quick'")) == 1


def test_a_killed_study_goes_on_in_the_same_runs(fake_sites, quick, tmp_path):
    folder, sites = tmp_path / "run", fake_sites("alpha", "beta")
    uri = f"sqlite:///{folder / STORE}"

    def kill_after_the_first(event):
        if event.kind == "round" and event.round == 2:
            raise Killed

    with pytest.raises(Killed):
        run(quick, sites, folder, progress=kill_after_the_first)
    result = run(quick, sites, folder)
    assert result["tracking"]["status"] == "written", result["tracking"]
    assert_holds(client_of(uri), result)


def test_a_paused_study_leaves_its_run_open_and_takes_it_up_again(fake_sites, quick, tmp_path):
    folder, sites = tmp_path / "run", fake_sites("alpha", "beta")
    sites["beta"].code_of["train"] = "budget-spent"
    with pytest.raises(QuorumNotMetError):
        run(quick, sites, folder)
    told = json.loads((folder / "result.json").read_text())["tracking"]
    client = client_of(f"sqlite:///{folder / STORE}")
    parent, _ = runs_of(client)
    assert told["status"] == "written" and told["run_id"] == parent.info.run_id
    assert (parent.info.status, parent.data.tags["cardionets.state"]) == ("RUNNING", "paused")
    sites["beta"].code_of.clear()
    result = run(quick, sites, folder)
    assert result["tracking"]["run_id"] == parent.info.run_id
    assert_holds(client, result)


def test_a_server_that_never_answers_holds_nothing_up(fake_sites, quick, tmp_path):
    folder = tmp_path / "run"
    plain = run(quick, fake_sites("alpha", "beta"), tmp_path / "plain", track=False)
    with black_hole() as uri:
        write_settings(folder, Tracking(uri=uri))
        result = run(quick, fake_sites("alpha", "beta"), folder)
    assert result["model_digest"] == plain["model_digest"]
    told = result["tracking"]
    assert told["status"] == "behind" and told["store"] == uri
    assert "rounds" in told["missing"] and "cardionets-server track" in told["remedy"]
    # What was missed can go elsewhere.
    store = f"sqlite:///{tmp_path / 'other.db'}"
    found = send_later(LaterRequest(folder=folder, uri=store))
    assert found["status"] == "written", found
    assert_holds(client_of(store), result)


def test_a_server_that_dies_in_the_middle_gets_the_rest_later(server, fake_sites, quick, tmp_path):
    folder = tmp_path / "run"
    write_settings(folder, Tracking(uri=server.uri))
    plain = run(quick, fake_sites("alpha", "beta"), tmp_path / "plain", track=False)
    warnings_told = []

    def kill_the_server(event):
        if event.kind == "warning":
            warnings_told.append(event.text)
        if event.kind != "round":
            return
        if event.round == 1:
            wait_until(lambda: rounds_sent(folder, server.uri) == 1)
            server.kill()
        if event.round == 2:
            wait_until(lambda: noted(folder, server.uri)["reason"])

    result = run(quick, fake_sites("alpha", "beta"), folder, progress=kill_the_server)
    assert result["model_digest"] == plain["model_digest"]
    assert result["tracking"]["status"] == "behind"
    assert set(result["tracking"]["missing"]) >= {"rounds", "result", "model"}
    behind = send_later(LaterRequest(folder=folder))
    assert behind["exit_code"] == 6 and behind["rounds_sent"] < 3 and behind["reason"]
    server.start()
    found = send_later(LaterRequest(folder=folder))
    assert found["status"] == "written" and found["exit_code"] == 0, found
    client = client_of(server.uri)
    parent = assert_holds(client, result)
    version = client.get_model_version_by_alias("quick", "newest")
    assert version.tags["model_digest"] == plain["model_digest"]
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"study.json", "result.json"}
    assert any("tracking:" in text for text in warnings_told)
