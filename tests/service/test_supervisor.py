"""Real small processes under the supervisor: crash, restart, order, logs, health, the lock, leftovers."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from cardionets_core.durable import write_json
from cardionets_core.errors import ServiceDownError, UsageError
from cardionets_core.logs.log import EventLog
from cardionets_core.logs.reading import read_lines
from cardionets_core.service import supervisor
from cardionets_core.service.background import start_in_background
from cardionets_core.service.health import ask_health, require_free
from cardionets_core.service.logs import rotate, tail
from cardionets_core.service.process import ProcessSpec
from cardionets_core.service.state import end_leftovers, identity, living, only_one, running_service
from cardionets_core.service.supervisor import Job, Supervisor

FOREVER = "import time\nwhile True: time.sleep(.05)"


def spec(name, code, folder, **more):
    return ProcessSpec(
        name=name,
        command=[sys.executable, "-c", code],
        environment=dict(os.environ),
        log=folder / f"{name}.log",
        folder=folder,
        first_pause_s=0.1,
        longest_pause_s=0.4,
        grace_s=3.0,
        **more,
    )


def wait_until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Running:
    """A supervisor in a thread of this process."""

    def __init__(self, specs, folder, **more):
        self.told = []
        self.supervisor = Supervisor(
            specs, folder=folder, health_port=0, facts={"who": "test"}, tell=self.told.append, **more
        )
        self.thread = threading.Thread(target=self.supervisor.run)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.supervisor.end()
        self.thread.join(20)
        assert not self.thread.is_alive()


def entry(running, name):
    return running.supervisor.describe()["processes"][name]


def test_a_killed_process_is_started_again_and_all_end_with_the_supervisor(tmp_path):
    with Running([spec("one", FOREVER, tmp_path)], tmp_path) as running:
        wait_until(lambda: running.supervisor.ready)
        first = entry(running, "one")["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: entry(running, "one").get("pid", first) != first)
        second = entry(running, "one")
        assert (second["restarts"], second["last_exit"]) == (1, -signal.SIGKILL)
        assert running_service(tmp_path)["processes"]["one"]["state"] in ("ready", "starting", "waiting")
    assert not psutil.pid_exists(second["pid"])
    assert running_service(tmp_path) is None
    assert any("ended with -9" in line for line in running.told), running.told


def test_a_disk_that_takes_nothing_ends_no_process(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Running([spec("one", FOREVER, tmp_path)], tmp_path) as running:
        wait_until(lambda: running.supervisor.ready)
        with monkeypatch.context() as patched:
            patched.setattr(supervisor, "write_json", full)
            patched.setattr(supervisor, "rotate", full)
            patched.setattr(running.supervisor, "_teller", full)
            # Its log can neither be opened nor made.
            (tmp_path / "one.log").unlink()
            (tmp_path / "one.log").mkdir()
            first = entry(running, "one")["pid"]
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: entry(running, "one").get("pid", first) != first)
            wait_until(lambda: running.supervisor.ready)
        (tmp_path / "one.log").rmdir()
        second = entry(running, "one")["pid"]
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: entry(running, "one").get("pid", second) != second)
        third = entry(running, "one")["pid"]
        wait_until(lambda: running_service(tmp_path)["processes"]["one"].get("pid") == third)


def test_a_process_that_keeps_dying_waits_longer_each_time(tmp_path):
    with Running([spec("bad", "raise SystemExit(7)", tmp_path)], tmp_path) as running:
        wait_until(lambda: entry(running, "bad")["restarts"] >= 4)
        assert running.supervisor._watched["bad"].pause_s == 0.4
        assert running.supervisor.describe()["status"] == "degraded"
    assert tail(tmp_path / "bad.log", 1)[0].startswith("--- ")


def test_a_process_waits_for_those_that_it_needs(tmp_path):
    gate = tmp_path / "gate"
    specs = [
        spec("first", FOREVER, tmp_path, ready=gate.exists),
        spec("second", FOREVER, tmp_path, needs=("first",)),
    ]
    with Running(specs, tmp_path) as running:
        wait_until(lambda: entry(running, "first")["state"] == "starting")
        time.sleep(0.6)
        assert entry(running, "second")["state"] == "waiting"
        gate.touch()
        wait_until(lambda: running.supervisor.ready)


def test_jobs_go_on_after_an_error(tmp_path):
    times = []

    def work():
        times.append(1)
        if len(times) == 1:
            raise OSError("once")

    job = Job(name="job", every_s=0.05, work=work)
    with Running([spec("one", FOREVER, tmp_path)], tmp_path, jobs=[job]) as running:
        wait_until(lambda: len(times) > 2)
    assert any("OSError: once" in line for line in running.told)


def test_a_job_may_be_done_before_all_is_ready(tmp_path):
    never, always = [], []
    jobs = [
        Job(name="never", every_s=0.05, work=lambda: never.append(1)),
        Job(name="always", every_s=0.05, work=lambda: always.append(1), when_ready=False),
    ]
    unready = spec("one", FOREVER, tmp_path, ready=lambda: False)
    with Running([unready], tmp_path, jobs=jobs):
        wait_until(lambda: len(always) > 2)
    assert never == []


def test_the_health_page_tells_the_truth(tmp_path):
    gate = tmp_path / "gate"
    running = Running([spec("one", FOREVER, tmp_path, ready=gate.exists)], tmp_path)
    with running:
        wait_until((tmp_path / "service.json").exists)
        # Port 0 takes any that is free; the page itself knows which.
        port = next(
            c.laddr.port for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN
        )
        assert ask_health(port)["status"] == "degraded"
        gate.touch()
        wait_until(lambda: ask_health(port)["status"] == "ok")
        assert ask_health(port)["who"] == "test"
    assert ask_health(port) is None


def test_a_second_service_in_the_folder_is_refused(tmp_path):
    with only_one(tmp_path), pytest.raises(UsageError, match="running already"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_what_a_killed_supervisor_left_is_ended(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", FOREVER])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    dead = identity(gone.pid)
    gone.wait()
    processes = {"one": {**identity(child.pid), "family": [identity(child.pid)]}}
    write_json(tmp_path / "service.json", {"supervisor": dead, "processes": processes})
    assert end_leftovers(tmp_path) == ["one"]
    child.wait(5)
    assert living(processes["one"]) is None
    assert end_leftovers(tmp_path) == []


def test_a_number_that_another_process_took_is_not_ours():
    mine = identity(os.getpid())
    assert living(mine) is not None
    assert living({**mine, "started_s": mine["started_s"] - 100}) is None
    assert living(None) is None and living({"pid": "x"}) is None


def test_leftovers_are_not_touched_while_the_supervisor_lives(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", FOREVER])
    try:
        content = {"supervisor": identity(os.getpid()), "processes": {"one": identity(child.pid)}}
        write_json(tmp_path / "service.json", content)
        assert end_leftovers(tmp_path) == []
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_logs_rotate_and_the_process_goes_on_writing(tmp_path):
    log = tmp_path / "x.log"
    with log.open("ab") as handle:
        handle.write(b"a" * 100)
        handle.flush()
        assert not rotate(log, maximum_bytes=100, keep=2)
        handle.write(b"a")
        handle.flush()
        assert rotate(log, maximum_bytes=100, keep=2)
        handle.write(b"b" * 101)
        handle.flush()
    assert log.read_bytes() == b"b" * 101
    assert rotate(log, maximum_bytes=100, keep=2)
    with log.open("ab") as handle:
        handle.write(b"c" * 101)
    assert rotate(log, maximum_bytes=100, keep=2)
    assert [Path(f"{log}.{n}").read_bytes()[:1] for n in (1, 2)] == [b"c", b"b"]
    assert not Path(f"{log}.3").exists()
    assert tail(tmp_path / "none.log", 3) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_supervisor_and_its_processes(tmp_path, number):
    code = f"""
import os, sys
from pathlib import Path
from cardionets_core.service.process import ProcessSpec
from cardionets_core.service.supervisor import Supervisor
folder = Path({str(tmp_path)!r})
one = ProcessSpec(name="one", command=[sys.executable, "-c", {FOREVER!r}], environment=dict(os.environ),
                  log=folder / "one.log", folder=folder)
Supervisor([one], folder=folder, health_port=0, facts={{}}).run()
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: (running_service(tmp_path) or {}).get("status") == "ok")
    child = json.loads((tmp_path / "service.json").read_text())["processes"]["one"]["pid"]
    process.send_signal(number)
    assert process.wait(20) == 0
    assert not psutil.pid_exists(child)


def test_a_port_that_is_taken_is_told_by_the_key_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=str(port)) as told:
            require_free("127.0.0.1", port, key="server.yaml: inner_port")
        assert told.value.where == "server.yaml: inner_port"
    require_free("127.0.0.1", port, key="server.yaml: inner_port")
    with pytest.raises(UsageError, match="cannot listen on"):
        require_free("203.0.113.1", port, key="server.yaml: address")


def test_a_service_that_ends_tells_its_own_words_and_not_those_of_an_earlier_start(tmp_path):
    log = tmp_path / "service.log"
    log.write_text("words of an earlier start\n")
    command = [sys.executable, "-c", "print('mine'); raise SystemExit(3)"]
    with pytest.raises(ServiceDownError, match="ended with 3") as told:
        start_in_background(command, folder=tmp_path / "state", log=log, cwd=tmp_path)
    assert "mine" in told.value.what and "earlier" not in told.value.what
    assert log.read_text().startswith("words of an earlier start")


@pytest.mark.parametrize(
    ("words", "returncode", "kind", "what"),
    [
        ("error [usage]: the port is used\n  where: p\n  to do: choose", 2, UsageError, "the port is used"),
        ("error [usage]: the port is used", 1, ServiceDownError, "ended with 1"),
        ("error [no-such-code]: words", 2, ServiceDownError, "ended with 2"),
    ],
)
def test_the_error_of_a_service_that_ended_is_told_once(tmp_path, words, returncode, kind, what):
    program = f"print('begins'); print({words!r}); raise SystemExit({returncode})"
    with pytest.raises(kind) as told:
        start_in_background(
            [sys.executable, "-c", program], folder=tmp_path / "state", log=tmp_path / "log", cwd=tmp_path
        )
    assert type(told.value) is kind and what in told.value.what
    if kind is UsageError:
        assert (told.value.where, told.value.remedy, told.value.exit_code) == ("p", "choose", 2)
        assert "error [" not in str(told.value)


def test_its_events_stand_in_the_side_s_log(tmp_path):
    log = EventLog(path=tmp_path / "server.log", side="server")
    with_marks = "/data/Jane-Doe.xml"

    def fails():
        raise ValueError(with_marks)

    watching = Supervisor(
        [spec("one", FOREVER, tmp_path), spec("bad", "raise SystemExit(3)", tmp_path)],
        folder=tmp_path, health_port=0, facts={"versions": {"cardionets": "0.1.0"}}, log=log,
        jobs=(Job(name="look", every_s=60.0, work=fails, when_ready=False),),
    )  # fmt: skip
    thread = threading.Thread(target=watching.run)
    thread.start()
    try:
        wait_until(lambda: "process-ended" in {line["event"] for line in read_lines(log.path)})
    finally:
        watching.end()
        thread.join(timeout=30)
    lines = list(read_lines(log.path))
    assert lines[0]["event"] == "service-started" and lines[0]["cardionets"] == "0.1.0"
    assert lines[-1]["event"] == "service-ended"
    (failed,) = [line for line in lines if line["event"] == "job-failed"]
    assert failed["error"] == "builtins.ValueError" and with_marks not in log.path.read_text()
    ended = next(line for line in lines if line["event"] == "process-ended")
    assert (ended["process"], ended["exit"], ended["level"]) == ("bad", 3, "error")
    assert {line["process"] for line in lines if line["event"] == "process-stopped"} >= {"one"}
    assert (tmp_path / "one.log").stat().st_mode & 0o077 == 0


SAYS = "print({!r}); raise SystemExit(1)"
UNANSWERED = "Failed to initialize the connection to the SuperLink."


@pytest.mark.parametrize(
    "words, event",
    [
        (UNANSWERED, "process-unanswered"),
        (f"REFUSED: the coordinator answers 401 not-admitted\n{UNANSWERED}", "process-ended"),
        ("a fault of its own", "process-ended"),
    ],
)
def test_an_end_because_nobody_answers_is_a_warning(tmp_path, words, event):
    log = EventLog(path=tmp_path / "client.log", side="client")
    (tmp_path / "one.log").write_text(f"{UNANSWERED}\n")  # of an earlier start: says nothing of this one
    watching = Supervisor(
        [spec("one", SAYS.format(words), tmp_path)], folder=tmp_path, health_port=0, facts={}, log=log
    )
    thread = threading.Thread(target=watching.run)
    thread.start()
    ends = ("process-ended", "process-unanswered")
    try:
        wait_until(lambda: any(line["event"] in ends for line in read_lines(log.path)))
    finally:
        watching.end()
        thread.join(timeout=30)
    found = [line for line in read_lines(log.path) if line["event"] in ends]
    assert found[0]["event"] == event and found[0]["exit"] == 1
    assert found[0]["level"] == ("warning" if event == "process-unanswered" else "error")


def test_a_process_that_is_busy_for_a_while_was_not_started_anew(tmp_path):
    log = EventLog(path=tmp_path / "client.log", side="client")
    looks = iter([True, False, True] + [True] * 10_000)
    watching = Supervisor(
        [spec("one", FOREVER, tmp_path, ready=lambda: next(looks))],
        folder=tmp_path, health_port=0, facts={}, log=log,
    )  # fmt: skip
    thread = threading.Thread(target=watching.run)
    thread.start()
    try:
        wait_until(lambda: [x["event"] for x in read_lines(log.path)].count("process-ready") == 2)
    finally:
        watching.end()
        thread.join(timeout=30)
    assert [line["event"] for line in read_lines(log.path)].count("process-started") == 1
