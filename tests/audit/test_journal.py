"""The journal's chain breaks where a line is changed, removed, moved or torn."""

import pytest

from cardionets_core.audit import journal
from cardionets_core.errors import DataError


def filled(path, lines=5):
    for number in range(lines):
        journal.append(path, "reply-left", {"round": number, "bytes": 10 * number})
    return path


def test_a_whole_journal_verifies_and_counts(tmp_path):
    path = filled(tmp_path / "deep" / "journal.jsonl")
    assert journal.verify(path) == 5


@pytest.mark.parametrize("kind", ["change", "remove", "swap"])
def test_tampering_is_found(tmp_path, kind):
    path = filled(tmp_path / "journal.jsonl")
    lines = path.read_text().splitlines()
    if kind == "change":
        lines[2] = lines[2].replace('"bytes":20', '"bytes":21')
    elif kind == "remove":
        del lines[1]
    else:
        lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError):
        journal.verify(path)


def test_a_torn_last_line_stops_the_next_append(tmp_path):
    path = filled(tmp_path / "journal.jsonl")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="torn"):
        journal.append(path, "reply-left", {})
