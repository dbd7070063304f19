"""The guard in the SuperNode: its command line, its judgement, and what its processes inherit."""

import hashlib
import os
import sys
from types import SimpleNamespace

import pytest
from flwr.supercore.fab import Fab

import client.supernode as supernode
from cardionets_core.errors import CodeNotApprovedError, ConfigError, UsageError
from cardionets_core.logs.reading import read_lines
from client.pace import Pace
from client.supernode import FOLDER_VARIABLE, Guard, clean_environment, guard_flower, main, read_arguments


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def guard(tmp_path):
    return Guard(tmp_path / "approvals")


def test_our_options_stand_first_and_the_rest_is_flowers(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    given = read_arguments(["--poll", "0.5", f"--approvals={tmp_path}", "--insecure", "--port", "1"])
    assert (given.approvals, given.poll_s) == (tmp_path, 0.5)
    assert given.flower == ["--insecure", "--port", "1"]
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert read_arguments(["--insecure"]).approvals == tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--approvals"],
        ["--approvals", "x", "--poll", "soon"],
        ["--approvals", "x", "--poll", "0"],
        ["--approvals", "x", "--poll", "nan"],
        ["--approvals", "x", "--trusted-entities", "mine.yaml"],
        ["--approvals", "x", "--trust=mine.yaml"],
        ["--approvals", "x", "--allow-runtime-dependency-installation"],
        ["--approvals", "x", "--allow"],
    ],
)
def test_an_option_that_is_wrong_or_takes_the_check_away_is_refused(arguments, monkeypatch, capsys):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(UsageError):
        read_arguments(arguments)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "error [usage]" in capsys.readouterr().err


def test_only_approved_bytes_get_a_signature_and_the_others_wait(guard):
    guard.store.approve_code(b"good")
    # Whatever came along with it counts for nothing.
    good = guard.judged(Fab(sha(b"good"), b"good", {"fpk_stranger": "x"}), sha(b"good"))
    assert set(good.verifications) == {"valid_license", "fpk_site_approvals"}
    bad = guard.judged(Fab(sha(b"bad"), b"bad", dict(good.verifications)), sha(b"bad"))
    assert set(bad.verifications) == {"valid_license"}
    assert guard.store.pending.codes() == {sha(b"bad"): b"bad"}
    (line,) = read_lines(guard.store.folder.parent / "client.log")
    assert (line["event"], line["code"], line["bundle"]) == ("code-refused", "code-not-approved", sha(b"bad"))


@pytest.mark.parametrize(
    "fab, asked",
    [
        (Fab(sha(b"good"), b"bad", {}), sha(b"good")),
        (Fab(sha(b"bad"), b"good", {}), sha(b"good")),
        (Fab(sha(b"good"), b"good", {}), sha(b"bad")),
    ],
)
def test_bytes_that_are_not_what_the_run_names_get_none(guard, fab, asked):
    guard.store.approve_code(b"good")
    guard.store.approve_code(b"bad")
    assert set(guard.judged(fab, asked).verifications) == {"valid_license"}


class State:
    """Of Flower's node, as far as the guard looks at it."""

    def __init__(self, run):
        self.run = run

    def get_run(self, run_id):
        return self.run


def test_flower_is_guarded_at_each_message(guard, monkeypatch):
    import flwr.supernode.fleet_http_connection as connection
    import flwr.supernode.start_client_internal as flower

    seen = []
    monkeypatch.setattr(connection, "FleetHttpClient", connection.FleetHttpClient)
    for name in ("http_request_response", "_pull_and_store_message", "time"):
        monkeypatch.setattr(flower, name, getattr(flower, name))
    monkeypatch.setattr(flower, "_pull_and_store_message", lambda **named: seen.append(named))
    guard_flower(guard, poll_s=0.25)

    # Without the site's key Flower would take any code.
    with pytest.raises(CodeNotApprovedError):
        flower._pull_and_store_message(state=State(None), trusted_entities=None)
    run = SimpleNamespace(fab_hash=guard.store.approve_code(b"good"))
    flower._pull_and_store_message(state=State(run), trusted_entities={"a": "b"})
    assert seen[0]["state"].get_run(1) is run and seen[0]["state"].run is run
    guard.store.withdraw(run.fab_hash)
    assert seen[0]["state"].get_run(1) is None  # Flower judges it anew

    assert isinstance(flower.time.sleep, Pace)


def test_the_processes_of_the_node_inherit_no_paths_to_other_code(monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", {"PYTHONPATH": "/bundle", "PATH": "/usr/bin", FOLDER_VARIABLE: "x"})
        clean_environment()
        assert not {"PYTHONPATH", FOLDER_VARIABLE} & set(os.environ)
        assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        assert os.environ["PATH"].endswith("/usr/bin") and not os.environ["PATH"].startswith("/usr/bin")
        clean_environment("/site/node/bin")
        assert os.environ["PATH"].startswith(f"/site/node/bin{os.pathsep}")


def test_a_guard_that_came_with_a_bundle_refuses_to_guard(monkeypatch, tmp_path):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(supernode, "__file__", str(tmp_path / "apps" / "x.y.1" / "client" / "supernode.py"))
    with pytest.raises(ConfigError, match="itself taken from code"):
        clean_environment()


def test_a_supernode_whose_work_has_ended_does_not_stay_as_a_shell(monkeypatch, tmp_path):
    """Flower's HTTP server would keep the process, cut off from the coordinator."""
    import flwr.supernode.cli

    class Ended(BaseException):
        pass

    def end(code):
        raise Ended(code)

    worked = []
    monkeypatch.setattr(flwr.supernode.cli, "flower_supernode", lambda: worked.append(list(sys.argv)))
    monkeypatch.setattr(supernode, "clean_environment", lambda starter: None)
    monkeypatch.setattr(supernode, "guard_flower", lambda guard, poll_s: None)
    monkeypatch.setattr(supernode.os, "_exit", end)
    monkeypatch.setattr(supernode.logging, "shutdown", lambda: None)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    with pytest.raises(Ended) as ended:
        main(["--approvals", str(tmp_path), "--insecure"])
    assert ended.value.args == (1,) and "--insecure" in worked[0]
