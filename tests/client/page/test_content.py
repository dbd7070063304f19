"""What the status page says: the same numbers as the journal, the log and the report, of every state."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from cardionets_core.audit import journal
from cardionets_core.errors import ConfigError, DataError
from client.journal import mend
from client.page.chain import Chain
from client.page.content import Looking
from client.page.left import left_of
from client.page.now import now_of


def look(folder):
    found = Looking(folder).look()
    json.dumps(found, allow_nan=False)
    return found


def test_a_bare_site_says_what_it_lacks(bare):
    found = look(bare)
    assert (found["service"], found["order"], found["quality"], found["prepared"]) == (
        "not running",
        None,
        None,
        False,
    )
    assert found["journal"]["state"] == "absent" and found["left"]["week"]["count"] == 0
    assert (
        found["budget"]["left"] == found["budget"]["limit"]["epsilon"] == 4.0 and not found["budget"]["error"]
    )
    assert found["approvals"] == {
        "fault": "",
        "code": [],
        "studies": [],
        "waiting": {"code": 0, "studies": 0},
    }
    assert found["commands"]["stop"] == f"cardionets-client stop '{bare.root}'"  # there is a space in it


def test_numbers_are_those_of_the_journal(busy):
    found = look(busy)
    week = found["left"]["week"]
    assert week == found["left"]["today"]
    assert week["by_kind"] == {
        "train": {"count": 3, "bytes": 3_000_003 + 1500}, "evaluate": {"count": 1, "bytes": 700},
        "refusal": {"count": 1, "bytes": 140},
    }  # fmt: skip
    assert (week["count"], week["patients"], week["bytes"]) == (5, 42, 3_001_503 + 840)
    assert [line["kind"] for line in found["left"]["last"]] == [
        "refusal",
        "evaluate",
        "train",
        "train",
        "train",
    ]
    assert sum(sum(day["bytes"].values()) for day in found["left"]["days"]) == week["bytes"]
    head = journal.head(busy.root / "state" / "journal.jsonl")
    assert (found["journal"]["lines"], found["journal"]["head"]) == head and found["journal"][
        "state"
    ] == "whole"


def test_the_order_the_refusals_and_the_study_are_told(busy):
    found = look(busy)
    assert found["order"]["round"] == 3 and found["order"]["state"] == "cut off"  # nothing runs
    (refusal,) = found["refusals"]
    assert refusal["code"] == "too-few-patients" and refusal["round"] == 2
    (study,) = found["approvals"]["studies"]
    assert study["name"] == "demo" and study["phases"]
    assert found["quality"]["patients"] == 987 and found["prepared"]
    assert "least" not in json.dumps(found["quality"])  # of one person


def test_a_broken_document_takes_no_more_than_its_part(busy):
    (busy.root / "site.yaml").write_text("site: [")
    found = look(busy)
    assert found["site_yaml"] and found["left"] is found["journal"] is found["budget"] is None
    assert found["approvals"]["studies"] and found["refusals"]
    (busy.root / "connection.yaml").write_text("server: 3")
    with pytest.raises(ConfigError):
        Looking(busy)


def line(event, second=0, **fields):
    level = {"order-refused": "error"}.get(event, "info")
    return {
        "time": f"2026-01-01T00:00:{second:02d}Z",
        "level": level,
        "event": event,
        "side": "client",
        **fields,
    }


NAME = {"kind": "train", "study": "ab" * 32, "phase": 0, "round": 1, "attempt": 1}


@pytest.mark.parametrize(
    "lines, running, state, step",
    [
        ([line("order-reached", **NAME)], True, "in hand", ""),
        ([line("order-reached", **NAME), line("trained", **NAME)], True, "in hand", "trained"),
        ([line("order-reached", **NAME), line("reply-left", **NAME), line("order-answered", **NAME)],
         True, "done", "answered"),
        ([line("order-reached", **NAME), line("refusal-left", **NAME), line("order-answered", **NAME)],
         True, "refused", "refused"),
        ([line("order-reached", **NAME), line("service-started")], True, "cut off", ""),
        ([line("order-reached", **NAME)], False, "cut off", ""),
        ([line("code-refused")], True, "refused", "refused"),
        ([line("order-reached", **NAME), line("order-answered", **NAME), line("code-refused")], True,
         "refused", "refused"),
        ([line("order-reached", **NAME), line("order-answered", **NAME), line("order-refused")], True,
         "refused", "refused"),
        ([line("order-reached", **NAME), line("code-refused")], True, "in hand", ""),
        ([line("code-refused"), line("order-reached", **NAME), line("order-answered", **NAME)], True, "done",
         ""),
        ([line("order-reached", **NAME), line("order-answered", seconds=1.0, **{**NAME, "round": 9})], True,
         "in hand", ""),
    ],
)  # fmt: skip
def test_the_order_in_hand(lines, running, state, step):
    found = now_of(lines, running=running)["order"]
    assert (found["state"], found["step"]) == (state, step)


def test_the_link_counts_since_the_service_was_started():
    lines = [line("link-changed", 1, link="connected"), line("service-started", 2)]
    assert now_of(lines, running=True)["link_since_s"] is None
    lines.append(line("link-changed", 3, link="connected"))
    assert (
        now_of(lines, running=True)["link_since_s"] == datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC).timestamp()
    )


def test_days_are_local_and_a_long_journal_says_so(tmp_path):
    path, now = tmp_path / "journal.jsonl", datetime.now().astimezone()
    for number in range(50):
        journal.append(path, "reply-left", {"kind": "train", "bytes": 10, "phase": 0, "round": number})
    assert left_of(path, now=now)["complete"]
    found = left_of(path, now=now, tail_bytes=1000)
    assert not found["complete"] and 0 < found["week"]["count"] < 10
    assert left_of(path, now=now + timedelta(days=1))["today"]["count"] == 0
    assert left_of(path, now=now + timedelta(days=6))["week"]["count"] == 50
    assert left_of(path, now=now + timedelta(days=7))["week"]["count"] == 0
    with path.open("ab") as handle:  # what another hand wrote
        handle.write(b'x {"event": "reply-left", "kind": ["a"], "time_s": 1e400}\nx []\n\xff\xfe\n')
    assert left_of(path, now=now)["week"]["count"] == 50


def test_the_chain_is_checked_a_part_at_a_time_and_no_line_twice(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert Chain(path=path).look()["state"] == "absent"
    for number in range(20):
        journal.append(path, "reply-left", {"round": number})
    chain = Chain(path=path, look_bytes=700)
    states = [chain.look() for _ in range(20)]
    assert states[0]["state"] == "checking" and 0 < states[0]["checked_bytes"] < states[0]["bytes"]
    assert states[-1]["state"] == "whole" and (states[-1]["lines"], states[-1]["head"]) == journal.head(path)
    journal.append(path, "reply-left", {"round": 20})
    assert chain.look()["lines"] == journal.verify(path) == 21
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))  # became shorter
    found = [chain.look() for _ in range(4)][-1]
    assert (found["state"], found["lines"]) == ("whole", 5)


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_changed_line_is_found_as_verify_finds_it(busy, number):
    path = busy.root / "state" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(b'"attempt":1', b'"attempt":2')
    path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=f"line {number} "):
        journal.verify(path)
    found = look(busy)["journal"]
    assert (found["state"], found["fault_line"], found["lines"]) == ("broken", number, number - 1)


def test_a_chain_that_was_rewritten_after_it_was_checked_is_checked_anew(busy):
    path = busy.root / "state" / "journal.jsonl"
    chain = Chain(path=path)
    assert chain.look()["state"] == "whole"
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("r+b") as handle:  # in its place, of the same length
        handle.seek(sum(map(len, lines[:-1])))
        handle.write(lines[-1].replace(b'"attempt":1', b'"attempt":2'))
    assert chain.look()["state"] == "broken"


def test_a_torn_end_is_said_once_nobody_writes_it(busy, old):
    with old.open("ab") as handle:
        handle.write(b"0" * 64 + b' {"number":')
    chain = Chain(path=old)
    assert chain.look()["state"] == "whole"  # somebody may be writing it now
    os.utime(old, (time.time() - 60, time.time() - 60))
    assert chain.look()["state"] == "torn"
    mend(old)
    assert chain.look()["state"] == "whole" and chain.look()["lines"] == journal.verify(old) == 6


def test_a_look_costs_no_reckoning_where_nothing_was_spent(bare):
    import sys

    loaded = "client.budget" in sys.modules
    look(bare)
    assert ("client.budget" in sys.modules) == loaded
