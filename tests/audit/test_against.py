"""A head that the other side holds finds a journal that was rewritten whole, cut off, or begun anew."""

import hashlib
import json

import pytest

from cardionets_core.audit import journal
from cardionets_core.audit.against import Witnessed, heads_json, read_heads, verify_against
from cardionets_core.errors import DataError

OWN = "site/alpha"


def filled(path, lines=6):
    for number in range(lines):
        journal.append(path, "reply-left", {"round": number, "bytes": 10 * number})
    return path


def rewrite(path, change):
    """Change the bodies and make the whole chain anew, as somebody who holds the disk can."""
    kept = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
    previous, lines = journal.GENESIS, []
    for number, body in enumerate(change(kept), start=1):
        text = json.dumps(
            {**body, "number": number, "previous": previous}, sort_keys=True, separators=(",", ":")
        )
        previous = hashlib.sha256(text.encode()).hexdigest()
        lines.append(f"{previous} {text}\n")
    path.write_text("".join(lines))


def witnessed(path, *numbers, name=OWN):
    return [Witnessed(journal=name, lines=n, hash=journal.hash_of(path, n) or "") for n in numbers]


def against(path, heads):
    return verify_against(path, heads, journal=OWN, proves=lambda head: True)


def changed(bodies):
    bodies[2]["bytes"] = 0
    return bodies


REWRITINGS = {
    "changed": changed,
    "removed": lambda bodies: bodies[:2] + bodies[3:],
    "moved": lambda bodies: [bodies[1], bodies[0], *bodies[2:]],
    "cut off": lambda bodies: bodies[:4],
    "begun anew": lambda bodies: [],
}


def test_the_head_is_that_of_the_last_line_and_each_line_has_one(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert journal.head(path) == (0, journal.GENESIS)
    heads = [journal.append_line(path, "reply-left", {"round": n}) for n in range(3)]
    assert [number for number, _ in heads] == [1, 2, 3] and journal.head(path) == heads[-1]
    assert [journal.hash_of(path, number) for number in range(4)] == [journal.GENESIS, *(h for _, h in heads)]
    assert journal.hash_of(path, 4) is None and journal.hash_of(path, -1) is None


@pytest.mark.parametrize("kind", sorted(REWRITINGS))
def test_a_rewritten_chain_is_whole_and_is_found_all_the_same(tmp_path, kind):
    path = filled(tmp_path / "journal.jsonl")
    heads = witnessed(path, 1, 4, 6)
    assert against(path, heads).heads == 3
    rewrite(path, REWRITINGS[kind])
    assert journal.verify(path) < 7  # nothing wrong with it by itself
    with pytest.raises(DataError, match="the other side knew"):
        against(path, heads)


def test_lines_that_came_after_the_last_head_are_not_covered(tmp_path):
    path = filled(tmp_path / "journal.jsonl")
    heads = witnessed(path, 2)
    rewrite(path, changed)  # the third line
    assert against(path, heads).heads == 1


def test_a_broken_chain_is_told_first_and_heads_of_others_are_passed_over(tmp_path):
    path = filled(tmp_path / "journal.jsonl")
    strange = witnessed(path, 3, name="site/beta")
    rewrite(path, changed)
    assert against(path, strange).heads == 0
    path.write_text(path.read_text().replace('"bytes":50', '"bytes":51'))
    with pytest.raises(DataError, match="does not continue the chain"):
        against(path, strange)


def test_the_error_says_whether_the_owner_signed_what_accuses_it(tmp_path):
    path = filled(tmp_path / "journal.jsonl")
    heads = witnessed(path, 5)
    rewrite(path, changed)
    for proven, word in ((True, "signed by this journal's owner"), (False, "without a signature")):
        with pytest.raises(DataError, match=word):
            verify_against(path, heads, journal=OWN, proves=lambda head, proven=proven: proven)


def test_heads_go_to_a_file_and_back(tmp_path):
    path = filled(tmp_path / "journal.jsonl")
    heads = witnessed(path, 1, 6)
    (tmp_path / "heads.json").write_text(json.dumps(heads_json(heads, holder="server/x")))
    assert read_heads(tmp_path / "heads.json") == heads


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema_version":2,"heads":[]}', '{"schema_version":1,"heads":[{"lines":1}]}',
     '{"schema_version":1,"heads":[{"journal":"a","lines":-1,"hash":"b"}]}'],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "heads.json").write_text(text)
    with pytest.raises(DataError, match="file of heads"):
        read_heads(tmp_path / "heads.json")
    with pytest.raises(DataError, match="file of heads"):
        read_heads(tmp_path / "absent.json")
