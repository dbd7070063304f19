"""How the program ends: stopped from outside, without a reader, and with an error that programs can read."""

import json
import os
import signal
import subprocess
import sys

import pytest

from client import checks
from client.ending import run_program
from client.screen import Screen


@pytest.fixture
def stop_at(monkeypatch):
    """Sends this process a signal as soon as a stage has come so far."""

    def arm(number, stage, done):
        tell = Screen.tell

        def told(self, at, reached, total):
            tell(self, at, reached, total)
            if (at, reached) == (stage, done):
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Screen, "tell", told)

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_prepare_says_what_is_kept_and_goes_on_from_there(
    hospital, client, stop_at, monkeypatch, number, code
):
    before = [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM)]
    stop_at(number, "read", 5)
    done = client("prepare", "--site", hospital.site)
    assert done.code == code and done.out == ""
    assert done.err.splitlines()[-1] == (
        "stopped: 5 of 23 recordings are done and kept; run the same command again to go on"
    )
    assert [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM)] == before
    monkeypatch.undo()
    assert (
        json.loads(client("prepare", "--site", hospital.site, "--dry-run", "--format", "json").out)[
            "unchanged"
        ]
        == 5
    )
    again = client("prepare", "--site", hospital.site)
    assert again.code == 0 and "reading the recordings · 5 of 23" in again.err


def test_a_stopped_prepare_that_had_read_nothing_says_so(hospital, client, stop_at):
    stop_at(signal.SIGINT, "list", 23)
    done = client("prepare", "--site", hospital.site)
    assert done.code == 130 and "stopped: nothing was read yet" in done.err


def test_a_stopped_check_or_inspect_is_one_line(hospital, client, stop_at, monkeypatch):
    stop_at(signal.SIGINT, "sample", 2)
    done = client("check", "--site", hospital.site)
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == "stopped: nothing was changed"
    monkeypatch.setattr("client.inspection.inspect_one", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    done = client("inspect", hospital.folder / "ecg", "--format", "json")
    assert done.code == 130 and done.out == ""
    assert done.err.splitlines() == ["stopped: the rest was not looked at, and nothing was changed"]


def test_a_signal_that_comes_twice_at_once_stops_once():
    def twice():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        run_program(twice)
    assert ended.value.code == 143


@pytest.mark.parametrize("arguments", [("inspect", "{folder}"), ("--help",)])
def test_a_reader_who_has_gone_is_no_bug(hospital, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from client.cli import main; main()"
    told = [part.format(folder=hospital.folder / "ecg") for part in arguments]
    done = subprocess.run(
        [sys.executable, "-c", code, *told], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("command", [("prepare",), ("prepare", "--dry-run"), ("journal",), ("inspect", ".")])
def test_with_json_an_error_is_one_object_in_the_shape_of_the_problems_of_check(hospital, client, command):
    hospital.site.write_text("site: 3")
    done = client(*command, "--site", hospital.site, "--format", "json")
    answer = json.loads(done.out)
    assert answer["schema_version"] == 1 and done.code == 3 == answer["error"]["exit_code"]
    (problem,) = json.loads(client("check", "--site", hospital.site, "--format", "json").out)["problems"]
    assert answer["error"] == problem
    assert done.err.startswith("error [config-invalid]: ") and problem["remedy"] in done.err
    assert client(*command, "--site", hospital.site).out == ""


def test_a_refused_picture_is_an_object_too(hospital, client, monkeypatch):
    (hospital.folder / "there.png").write_bytes(b"")
    monkeypatch.setattr(checks, "check_site", lambda *_, **__: pytest.fail("refused before anything is read"))
    done = client(
        "check", "--site", hospital.site, "--picture", hospital.folder / "there.png", "--format", "json"
    )
    assert done.code == 2 and json.loads(done.out)["error"]["code"] == "usage"


def test_a_journal_is_verified_for_programs(hospital, client):
    done = client("journal", "--site", hospital.site, "--verify", "--format", "json")
    assert json.loads(done.out) == {"schema_version": 1, "lines": 0, "whole": True}
