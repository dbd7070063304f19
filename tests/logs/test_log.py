"""Our log: no line lost or torn whoever writes, cut by size, read again as it was written."""

import json
import multiprocessing
import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from cardionets_core.errors import UsageError, error_codes
from cardionets_core.logs.events import EVENTS, FIELDS, WITHHELD, OwnWords, told
from cardionets_core.logs.log import EventLog
from cardionets_core.logs.own_words import kind_of, places_of
from cardionets_core.logs.reading import (
    files_of,
    follow,
    last_lines,
    parse_since,
    read_lines,
    text_line,
)

STUDY = "ab" * 32
ROUND = {"kind": "train", "study": STUDY, "phase": 1, "round": 3, "attempt": 1}


def log_of(folder, **options):
    return EventLog(path=folder / "client.log", side="client", site="alpha", **options)


def test_a_line_is_read_as_it_was_written(tmp_path):
    log = log_of(tmp_path)
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert log.write("trained", **ROUND, seconds=1.25)
    (line,) = read_lines(log.path)
    assert list(line)[:5] == ["time", "level", "event", "side", "site"]
    assert line["time"].endswith("Z") and before <= datetime.fromisoformat(line["time"]) <= datetime.now(UTC)
    assert {name: line[name] for name in ROUND} == ROUND and line["seconds"] == 1.25
    assert (line["level"], line["side"], line["site"]) == ("info", "client", "alpha")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    shown = text_line(line)
    assert "phase 2, round 3" in shown and "trained" in shown and STUDY not in shown and STUDY[:16] in shown


def test_an_older_log_that_others_could_read_is_closed_to_them(tmp_path):
    log = log_of(tmp_path)
    log.path.write_text("2026-01-01 00:00:00 text of an earlier version\n")
    log.path.chmod(0o644)
    log.write("service-ended")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert [line["event"] for line in read_lines(log.path)] == ["service-ended"]


def test_what_the_table_does_not_name_cannot_be_written(tmp_path):
    with pytest.raises(KeyError):
        log_of(tmp_path).write("patient-found")
    with pytest.raises(KeyError):
        log_of(tmp_path).write("trained", patient="x")
    assert not (tmp_path / "client.log").exists()


@pytest.mark.parametrize(
    "field, value",
    [
        ("study", "Jane Doe"), ("study", "A" * 64), ("study", 7), ("kind", "jane"), ("phase", "1"),
        ("phase", True),
        ("phase", 2**70), ("round", 1.0), ("seconds", float("nan")), ("seconds", "1"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_withheld_and_counted(field, value):
    found = told("trained", {**ROUND, "seconds": 1.0, field: value})
    assert field not in found and found[WITHHELD] == 1


def test_sentences_are_the_program_s_own_or_none():
    found = told("order-refused", {"what": "free text", "where": OwnWords("gate"), "code": "not-a-code"})
    assert found == {"where": "gate", WITHHELD: 2}
    assert all(told("order-refused", {"code": code}) == {"code": code} for code in error_codes())


def test_every_event_uses_known_fields_and_every_field_is_used():
    used = {name for event in EVENTS.values() for name in event.fields} | {"site"}
    assert used == set(FIELDS)


def _write_many(path, writer, count):
    log = EventLog(path=path, side="client", maximum_bytes=20_000, keep=90)
    for number in range(count):
        assert log.write("order-answered", phase=writer, round=number, seconds=0.5, study=STUDY)


def test_no_line_is_lost_or_torn_when_processes_write_and_the_log_is_cut(tmp_path):
    path, writers, count = tmp_path / "client.log", 4, 250
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_many, args=(path, writer, count)) for writer in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    files = files_of(path)
    assert len(files) > 5 and all(file.stat().st_size <= 20_000 for file in files)
    raw = b"".join(file.read_bytes() for file in files).splitlines()
    lines = [json.loads(line) for line in raw]
    assert sorted((line["phase"], line["round"]) for line in lines) == [
        (writer, number) for writer in range(writers) for number in range(count)
    ]
    for writer in range(writers):  # and each writer's lines in their order
        assert [line["round"] for line in read_lines(path) if line["phase"] == writer] == list(range(count))


def test_only_so_many_older_files_are_kept(tmp_path):
    log = log_of(tmp_path, maximum_bytes=400, keep=2)
    for number in range(40):
        log.write("trained", phase=0, round=number, seconds=1.0)
    assert [file.name for file in files_of(log.path)] == ["client.log.2", "client.log.1", "client.log"]
    rounds = [line["round"] for line in read_lines(log.path)]
    assert rounds == list(range(40 - len(rounds), 40))
    assert [line["round"] for line in last_lines(log.path)] == rounds
    assert [line["round"] for line in last_lines(log.path, most_bytes=150)] == rounds[-1:]


def test_a_disk_that_takes_nothing_costs_the_line_and_nothing_else(tmp_path):
    (tmp_path / "client.log").symlink_to("/dev/full")
    assert not log_of(tmp_path).write("service-ended")
    (tmp_path / "client.log").unlink()
    (tmp_path / "client.log").mkdir()
    assert not log_of(tmp_path).write("service-ended")


def test_half_a_line_never_stands_before_another(tmp_path, monkeypatch):
    log, real = log_of(tmp_path), os.write
    log.write("service-ended")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda handle, line: real(handle, line[:10]))
        log.write("service-ended")
    log.write("service-ended")
    assert len(log.path.read_bytes().splitlines()) == len(list(read_lines(log.path))) == 2


def test_lines_by_level_and_moment(tmp_path):
    log = log_of(tmp_path)
    log.write("service-ended")
    log.write("site-lacks", lacks="code")
    log.write("order-failed", code="internal", error=OwnWords("builtins.ValueError"))
    log.path.write_text(log.path.read_text() + 'not ours\n{}\n[1]\n{"time": 3}\n')
    assert [line["event"] for line in read_lines(log.path, level="warning")] == ["site-lacks", "order-failed"]
    assert [line["event"] for line in read_lines(log.path, level="error")] == ["order-failed"]
    late = datetime.now(UTC) + timedelta(hours=1)
    assert not list(read_lines(log.path, since=late))
    assert len(list(read_lines(log.path, since=late - timedelta(hours=2)))) == 3


def test_a_moment_as_people_type_it():
    now = datetime(2026, 3, 4, 12, tzinfo=UTC)
    assert parse_since("90s", now=now) == now - timedelta(seconds=90)
    assert parse_since("2h", now=now) == now - timedelta(hours=2)
    assert parse_since("7d", now=now) == now - timedelta(days=7)
    assert parse_since("2026-01-31T08:00+00:00", now=now) == datetime(2026, 1, 31, 8, tzinfo=UTC)
    for wrong in ("", "yesterday", "-3d", "9" * 30 + "d"):
        with pytest.raises(UsageError):
            parse_since(wrong, now=now)


def test_lines_are_followed_over_a_cut(tmp_path):
    log = log_of(tmp_path, maximum_bytes=600, keep=30)
    log.write("service-started")
    found, looks = [], [0]

    def wait(seconds):
        looks[0] += 1
        if looks[0] > 8:
            raise KeyboardInterrupt
        for number in range(2):
            log.write("trained", phase=0, round=10 * looks[0] + number, seconds=1.0)

    with pytest.raises(KeyboardInterrupt):
        for line in follow(log.path, wait=wait):
            found.append(line.get("round"))
    assert found.pop(0) is None  # what was there comes first
    assert found == [10 * look + number for look in range(1, 9) for number in range(2)]
    assert len(files_of(log.path)) > 2


def test_terminals_are_not_steered(tmp_path):
    line = {"time": "2026-01-01T00:00:00Z", "level": "info", "event": "x\x1b[2J", "side": "client"}
    (tmp_path / "client.log").write_text(json.dumps(line) + "\n")
    assert list(read_lines(tmp_path / "client.log")) == []
    assert "\x1b" not in text_line(line)


FORGED = {"time": "2026-01-01T00:00:00Z", "level": "error", "event": "order-refused", "side": "client"}


@pytest.mark.parametrize(
    "changes",
    [
        {"what": "Meier R010007 1950-01-01"}, {"what": "Zzmeier"}, {"what": 7}, {"where": "Zzmeier/file"},
        {"what": "the journal is torn", "remedy": "1931-02-03"}, {"level": "info"}, {"side": "other"},
        {"event": "patient-found"}, {"event": ["a"]}, {"patient": "x"}, {"kind": "Zzmeier"}, {"code": []},
        {"study": "Meier"}, {"withheld": "Meier"}, {"time": "2026-01-01T00:00:00"}, {"site": "Jane Doe"},
        {"event": "order-failed", "error": "Zz Meier"}, {"event": "order-failed", "at": "Zz Meier"},
    ],
)  # fmt: skip
def test_what_could_not_have_been_written_is_not_read(tmp_path, changes):
    path, strange = tmp_path / "client.log", []
    path.write_text(json.dumps(FORGED) + "\n" + json.dumps({**FORGED, **changes}) + '\n\n{"time": "2026')
    lines = list(read_lines(path, strange=lambda: strange.append(1)))
    assert lines == last_lines(path) == [FORGED] and len(strange) == 2


def test_what_the_program_writes_of_refusals_is_read(tmp_path):
    log, path = log_of(tmp_path), tmp_path / "client.log"
    for what, where, remedy in (
        (
            "the study … (…) is not approved on this site",
            "order",
            "look at it with: cardionets-client approve",
        ),
        ("line … does not continue the chain", "state/journal-0123abcd.jsonl:14", ""),
        ("there is no cache", "<cache>/cohort/manifest.json", "make it first"),
        ("there is no folder …", "<data>/…", "free space; until then orders end with storage-failed"),
        ("", "site.yaml: source.people", ""),
    ):
        log.write("order-refused", what=OwnWords(what), where=OwnWords(where), remedy=OwnWords(remedy))
    try:
        raise ValueError("x")
    except ValueError as error:
        log.write("order-failed", code="internal", error=kind_of(error), at=places_of(error))
    assert len(list(read_lines(path))) == len(path.read_text().splitlines()) == 6
