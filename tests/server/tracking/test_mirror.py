"""Whatever is wrong with the mirror, events pass and the study learns of it once."""

import io
import os

import pytest

from server.progress import Event
from server.tracking import tracker
from server.tracking.beside import Words
from server.tracking.mirror import Mirror
from server.tracking.note import TRACKED, open_note


def event(kind="round", number=1):
    return Event(
        kind=kind, task="ecg_mae", phase=1, phases=1, round=number, rounds=3, site="a", loss=0.5, left_s=9.0
    )


@pytest.fixture
def told():
    return []


def test_without_tracking_events_pass_and_nothing_is_said(tmp_path, told):
    mirror = Mirror(tmp_path, on=False, progress=told.append)
    mirror.event(event())
    mirror.close()
    assert told == [event()] and mirror.end("completed") is None


def test_a_torn_note_is_told_once_and_stops_nothing(tmp_path, told):
    (tmp_path / TRACKED).write_text("{")
    mirror, noted = Mirror(tmp_path, on=True, progress=told.append), []
    mirror.note = noted.append
    for number in (1, 2):
        mirror.event(event(number=number))
    assert [each.kind for each in told] == ["round", "warning", "round"]
    assert "goes on without MLflow" in told[1].text and "tracked.json" in told[1].text
    assert (told[1].site, told[1].loss, told[1].left_s) == ("", None, None) and noted == [told[1]]
    found = mirror.end("completed")
    assert found["status"] == "failed" and "tracked.json" in found["reason"]
    assert (tmp_path / TRACKED).read_text() == "{"


class NoProcess:
    """A sending process that has its say in the note, and ends or hangs."""

    def __init__(self, command, *, stdin, stdout, stderr, env):
        self.reader, writer = os.pipe()
        self.stdin = os.fdopen(writer, "wb", buffering=0)
        self.killed = False

    ends = True

    def poll(self):
        return 0 if self.ends or self.killed else None

    def wait(self, seconds=None):
        if self.poll() is None:
            raise tracker.subprocess.TimeoutExpired("x", seconds)
        return 0

    def kill(self):
        self.killed = True


@pytest.fixture
def process(monkeypatch):
    made = []

    class Made(NoProcess):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(tracker.subprocess, "Popen", Made)
    yield made, Made
    for each in made:
        each.stdin.close()
        os.close(each.reader)


def fail(folder, reason):
    note = open_note(folder, label="mlflow.db")
    note.reason, note.missing = reason, ["rounds"] if reason else []
    note.save()


def test_a_lost_server_is_told_once_and_so_is_its_return(process, tmp_path, told):
    mirror = Mirror(tmp_path, on=True, progress=told.append)
    for reason in ("", "connection refused", "connection refused", "", ""):
        fail(tmp_path, reason)
        mirror.event(event())
    texts = [each.text for each in told if each.kind == "warning"]
    assert len(texts) == 2 and "connection refused" in texts[0] and "answers again" in texts[1]


def test_a_process_that_hangs_is_ended_and_what_is_missing_is_told(process, tmp_path, told):
    made, kind = process
    kind.ends = False
    mirror = Mirror(tmp_path, on=True, progress=told.append)
    mirror.event(event())
    for _ in range(100_000):  # nobody reads: the pipe is full long before, and no word waits for room
        mirror._tracker._say("round")
    found = mirror.end("completed")
    assert made[0].killed and found["status"] == "behind"
    assert found["missing"] == ["rounds", "result", "artefacts", "model"]
    assert "longer than" in found["reason"] and "cardionets-server track" in found["remedy"]
    assert told[-1].kind == "warning" and "lacks rounds" in told[-1].text


def test_a_process_that_died_early_is_told(process, tmp_path, told):
    mirror = Mirror(tmp_path, on=True, progress=told.append)
    mirror.event(event())
    found = mirror.end("completed")
    assert found["status"] == "behind" and "ended early" in found["reason"]


def test_the_newest_word_counts_and_the_end_is_the_end(monkeypatch):
    monkeypatch.setattr("server.tracking.beside.os._exit", lambda code: None)
    words = Words(io.StringIO("round\nround\ncompleted\nround\nnonsense\n"))
    words._listen()
    words.wait(60.0)  # there is news, so nobody waits
    assert words.state == "completed"
