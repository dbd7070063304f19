"""The journal as a table for people, and as JSON just as it was written."""

import json
from datetime import datetime

import pytest

from cardionets_core.audit import journal
from cardionets_core.config.site import read_site
from cardionets_core.errors import DataError
from client.journal import JOURNAL
from client.journal_lines import journal_table

STUDY = "ab" * 32
LEFT = {"kind": "train", "study": STUDY, "phase": 0, "round": 3, "attempt": 1, "bytes": 1234567,
        "text_bytes": 433, "digest": "cd" * 32, "patients": 1040, "modules": "ecg_encoder", "sums": 0,
        "server_head": "ef" * 32, "server_lines": 7, "server_signature": "aa" * 64,
        "server_key": "k" * 80}  # fmt: skip


def rows(*events):
    bodies = [json.dumps({"number": 1, "previous": "", "time_s": 1.7e9, **facts}) for facts in events]
    return list(journal_table(bodies))


def test_a_line_stands_under_its_columns_and_is_short():
    heads, study, row = rows({"event": "reply-left", **LEFT})
    assert study == f"study {STUDY[:16]}"
    assert len(row) <= 100 and len(heads) <= 100
    when, what, rest = row[:19], row[21:39].strip(), row[39:].split()
    assert datetime.strptime(when, "%Y-%m-%d %H:%M:%S").astimezone().timestamp() == 1.7e9
    assert (what, rest) == ("train", ["1/3", "1,235,000", "1,040", "cd" * 6])
    for column, value in (("phase/round", "1/3"), ("bytes", "1,235,000"), ("patients", "1,040")):
        assert heads.index(column) + len(column) == row.index(value) + len(value)
    assert heads.index("digest") == row.index("cdcd") and heads.index("what") == row.index("train")


def test_the_bytes_of_a_census_are_those_of_its_text():
    census = {**LEFT, "kind": "census", "round": 0, "bytes": 0, "text_bytes": 383, "patients": 0}
    assert rows({"event": "reply-left", **census})[2][39:].split()[:3] == ["1/0", "383", "cd" * 6]


def test_again_refused_and_other_lines_are_told_apart():
    refusal = {**LEFT, "code": "study-not-approved", "attempt": 2}
    told = rows(
        {"event": "reply-sent-again", **LEFT},
        {"event": "refusal-left", **refusal},
        {"event": "refusal-left", "kind": "", "study": "", "phase": 0, "round": 0, "attempt": 0,
         "code": "order-refused", "bytes": 0, "text_bytes": 90, "digest": "cd" * 32},
        {"event": "privacy-spent", "study": STUDY, "phase": 1, "round": 2, "ledger_lines": 4,
         "ledger_head": "12" * 32},
        {"event": "journal-mended", "torn_bytes": 7},
        {"event": "reply-left", **LEFT, "kind": "secure", "secure": "keys", "part": 0},
    )[2:]  # fmt: skip
    assert told[0][21:39].strip() == "train, again"
    assert told[1][21:39].strip() == "train, refused" and told[1].endswith("attempt 2  study-not-approved")
    assert "unread order, refused" in told[2] and told[2].endswith("order-refused")
    assert "privacy-spent" in told[3] and told[3].endswith("ledger_head 121212121212  ledger_lines 4")
    assert "journal-mended" in told[4] and told[4].endswith("torn_bytes 7")
    assert "head" not in told[0] + told[1]
    assert rows({"event": "refusal-left", **LEFT, "server_head_is": "forged"})[2].endswith("head was forged")
    assert "head" not in rows({"event": "refusal-left", **LEFT, "server_head_is": "signed"})[2]
    assert told[5][21:39].strip() == "secure" and told[5].endswith("part 0  secure keys")


def test_another_study_gets_a_heading_and_the_same_one_none():
    other = {**LEFT, "study": "99" * 32}
    lines = rows(*({"event": "reply-left", **facts} for facts in (LEFT, LEFT, other, LEFT)))
    headings = [line for line in lines if line.startswith("study ")]
    assert headings == [f"study {STUDY[:16]}", f"study {'99' * 8}", f"study {STUDY[:16]}"]


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"time_s": 1}', '{"time_s": "x", "event": "e"}', '{"time_s": 1e300, "event": 1}',
     '{"time_s": 1, "event": "reply-left", "bytes": "many"}', '{"time_s": 1, "event": "e", "patients": null}',
     '{"time_s": 1, "event": "e", "phase": [], "round": 1}', '{"time_s": 1, "event": [], "bytes": 1e999}'],
)  # fmt: skip
def test_a_line_that_is_none_of_ours_is_an_error_that_says_what_to_do(body):
    with pytest.raises(DataError, match="cannot be read") as caught:
        list(journal_table([body]))
    assert "journal verify" in caught.value.remedy


def test_a_forged_line_cannot_steer_a_terminal():
    for facts in ({"code": "\x1b[2J"}, {"study": "\x1b]0;owned\x07"}, {"kind": "\u202etrain"}):
        assert all(line.isprintable() for line in rows({"event": "refusal-left", **LEFT, **facts}))


def test_the_command_prints_the_table_and_its_json_is_as_it_was_written(hospital, client):
    path = read_site(hospital.site).folders.state / JOURNAL
    journal.append(path, "reply-left", LEFT)
    journal.append(path, "journal-mended", {"torn_bytes": 7})
    shown = client("journal", "--site", hospital.site).out.splitlines()
    assert [line[21:].split("  ")[0] for line in shown if "  " in line] == ["what", "train", "journal-mended"]
    assert max(map(len, shown)) <= 110
    lines = client("journal", "--site", hospital.site, "--format", "json").out.splitlines()
    assert [line.partition(" ")[2] for line in path.read_text().splitlines()] == lines
    assert json.loads(lines[0])["phase"] == 0 and json.loads(lines[0])["digest"] == "cd" * 32
