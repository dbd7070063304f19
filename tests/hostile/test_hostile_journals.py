"""Journals and heads of another hand: broken by name at the first line that does not fit."""

from __future__ import annotations

import hashlib
import json

import pytest

from cardionets_core.audit import journal
from cardionets_core.audit.against import Witnessed, heads_json, read_heads, verify_against
from cardionets_core.audit.lines import journal_bodies, journal_line
from cardionets_core.errors import CardioNetsError, DataError
from client.approvals.store import ApprovalStore
from client.journal import server_heads

BODIES = {
    "a list": "[]",
    "a word": '"previous"',
    "no JSON": "{",
    "deep nesting": "[" * 50_000,
    "a number of many digits": '{"number":' + "9" * 5000 + "}",
    "no number": '{"event":"x"}',
    "a number in words": '{"number":"one","event":"x","time_s":"soon"}',
    "a moment beyond all": '{"number":1,"event":"x","time_s":1e300}',
    "bytes that are no text": b"\xff\xfe",
    "a line beyond the tail that is read": '{"number":1,"x":"' + "x" * 70_000 + '"}',
}


def signed(body: str | bytes) -> bytes:
    text = body if isinstance(body, bytes) else body.encode()
    return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"


@pytest.fixture(params=BODIES.values(), ids=BODIES)
def hostile(request, tmp_path):
    """A journal of one line whose hash is right."""
    (tmp_path / "journal.jsonl").write_bytes(signed(request.param))
    return tmp_path / "journal.jsonl"


def refused(use, path) -> str:
    """How a use of a hostile journal ended, where it was not as it must be; else empty."""
    try:
        use(path)
    except CardioNetsError as error:
        return "" if error.what and error.where else "without words"
    except Exception as error:
        return type(error).__name__
    return ""


USES = {
    "verify": journal.verify,
    "head": journal.head,
    "append": lambda path: journal.append(path, "x", {}),
    "bodies": lambda path: list(journal.bodies(path)),
    "lines": lambda path: [journal_line(body) for body in journal_bodies(path)],
    "heads": lambda path: list(server_heads(path)),
}


@pytest.mark.parametrize("use", USES)
def test_whoever_reads_such_a_journal_meets_one_error_or_reads_on(tmp_path, use):
    path, found = tmp_path / "journal.jsonl", {}
    for name, body in BODIES.items():
        path.write_bytes(signed(body))
        found[name] = refused(USES[use], path)
    assert found == dict.fromkeys(BODIES, "")


def test_mending_and_looking_up_never_fail(hostile):
    assert journal.mend(hostile) == 0
    assert (
        journal.hash_of(hostile, 1)
        and journal.hash_of(hostile, 2) is None
        and journal.hash_of(hostile, -5) is None
    )


def test_no_record_of_approvals_of_such_lines_approves_anything(hostile):
    folder = hostile.parent / "approvals"
    folder.mkdir()
    (folder / "store.jsonl").write_bytes(hostile.read_bytes())
    assert ApprovalStore(folder).standing().fault


def test_a_head_without_its_study_is_told_with_its_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal.append(path, "reply-left", {"server_head": "x"})
    with pytest.raises(DataError, match="line 1"):
        list(server_heads(path))


HEADS = heads_json([Witnessed(journal="site/a", lines=1, hash="ab" * 32)], holder="server")


@pytest.mark.parametrize(
    "text",
    ["[]", "3", "{", json.dumps({**HEADS, "heads": [3]}), json.dumps({**HEADS, "schema_version": 2}),
     json.dumps({**HEADS, "heads": [{"journal": "site/a", "lines": True, "hash": "x"}]}),
     json.dumps({**HEADS, "heads": [{"journal": "site/a", "lines": -1, "hash": "x"}]}),
     "[" * 50_000],
)  # fmt: skip
def test_a_file_of_heads_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "heads.json").write_text(text)
    with pytest.raises(DataError):
        read_heads(tmp_path / "heads.json")


def test_a_head_that_does_not_lie_on_the_chain_is_named(tmp_path):
    journal.append(tmp_path / "j", "x", {})
    with pytest.raises(DataError, match="line 1"):
        verify_against(
            tmp_path / "j",
            [Witnessed(journal="a", lines=1, hash="x")],
            journal="a",
            proves=lambda head: False,
        )
