"""docs/run-folder.md is true: the keys of status.json, the events and keys of the journal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cardionets_core.audit import journal
from cardionets_core.config.study import Study
from cardionets_core.exchange.messages import Order, RoundName
from server.members import Members
from server.progress import Event
from server.reply_journal import JOURNAL, ReplyJournal
from server.status import STATUS, StatusBoard
from server.tracking.note import TRACKED, open_note
from server.tracking.sending import summary_of
from server.tracking.settings import SETTINGS, read_settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
ORDER = Order(
    kind="train", name=RoundName(study_digest="0" * 64, phase=0, round=1, attempt=1), study_json="{}"
)


def named(text):
    return set(re.findall(r"`([a-z_-]+)`", text))


def rows(section):
    """First cell to the others, of the table under a heading."""
    text = TEXT.partition(f"## `{section}`")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0]: cells[1:] for cells in lines if cells[0] != "`event`"}


@pytest.fixture
def written(tmp_path):
    """A status and a journal in which everything has happened once."""
    study = Study.model_validate({"name": "s", "seed": 1, "phases": [{"task": "ecg_mae", "rounds": 1}]})
    told = ReplyJournal(tmp_path)
    board = StatusBoard(tmp_path, study, members=Members(), journal=told)
    board.event(
        Event(kind="trained", task="ecg_mae", phase=1, phases=1, round=1, rounds=1, site="alpha", attempt=1)
    )
    board.ended(None)
    told.accepted(ORDER, site="alpha", attempt=1, digest="0" * 64, nbytes=4)
    told.refused(ORDER, site="alpha", node=7, code="late", reason="")
    told.kept(phase=0, round_number=1, part="train", sites=["alpha"])
    return tmp_path


def test_every_key_of_the_status_and_of_a_site_is_told(written):
    status = json.loads((written / STATUS).read_text())
    assert named(" ".join(rows("status.json"))) == set(status)
    of_a_site = TEXT.partition("Of a site:")[2].partition("##")[0]
    assert set(status["sites"][0]) <= named(of_a_site)


def test_every_event_of_the_journal_is_told_with_its_keys(written):
    assert journal.verify(written / JOURNAL) == 3
    lines = [json.loads(line.partition(" ")[2]) for line in (written / JOURNAL).read_text().splitlines()]
    told = {event.strip("`"): named(cells[-1]) for event, cells in rows("journal.jsonl").items()}
    for line in lines:
        assert told[line["event"]] == set(line) - {"number", "time_s", "event", "previous"}
    source = " ".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    for event in set(told) - {line["event"] for line in lines}:
        assert f'"{event}"' in source, f"{event} is an event no longer"


def test_every_key_of_what_was_sent_to_mlflow_is_told(tmp_path):
    note = open_note(tmp_path, label="mlflow.db")
    note.phase(0)
    note.run, note.model, note.missing = "id", {"name": "s", "version": "1"}, ["rounds"]
    note.save()
    stored = json.loads((tmp_path / TRACKED).read_text())["stores"]["mlflow.db"]
    found = rows("tracked.json")
    assert named(" ".join(found)) == set(stored)
    assert named(found["`phases`"][0]) == set(stored["phases"][0])
    assert named(found["`model`"][0]) == set(stored["model"])
    told = named(TEXT.partition("`tracking` of `result.json`")[2])
    assert set(summary_of(note, read_settings(tmp_path))) <= told
    for name in (TRACKED, SETTINGS):
        assert f"| `{name}` |" in TEXT
