"""docs/logs.md is held to the table of events, so that whoever reads a log finds every word of it."""

import re
from pathlib import Path

from cardionets_core.logs.events import EVENTS, FIELDS, LEVELS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "logs.md").read_text()


def rows(heading):
    part = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [re.split(r" *\| *", line.strip("| ")) for line in part.splitlines() if line.startswith("| `")]


def test_every_event_stands_in_the_document_with_its_level_meaning_and_fields():
    found = {row[0].strip("`"): (row[1], row[2], row[3] if len(row) > 3 else "") for row in rows("Events")}
    assert found == {
        name: (event.level, event.meaning, ", ".join(f"`{field}`" for field in event.fields))
        for name, event in EVENTS.items()
    }
    assert {event.level for event in EVENTS.values()} == set(LEVELS)


def test_every_field_stands_in_the_document():
    assert {row[0].strip("`"): row[1] for row in rows("Fields")} == {
        n: told for n, (told, _) in FIELDS.items()
    }


def test_every_event_is_written_somewhere():
    files = [path for top in ("cardionets_core", "client", "server") for path in (ROOT / top).rglob("*.py")]
    source = "\n".join(path.read_text() for path in files if path.name != "events.py")
    assert not [name for name in EVENTS if f'"{name}"' not in source]
