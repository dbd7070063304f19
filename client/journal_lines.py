"""The site's journal as a table for people: when, what, where in the study, how much, of how many (row 9).

Comes in: the journal's lines as JSON. Goes out: one plain line for each, under a heading for each study. Full
digests, and heads of the coordinator's journal, are in the JSON alone. Checks no chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from cardionets_core.errors import DataError
from cardionets_core.plain_json import parse_json

_WHAT = {"reply-left": "", "reply-sent-again": ", again", "refusal-left": ", refused"}
"""What is said after the kind of order that a message answers."""
_SHORT = 12
_IN_COLUMNS = {"time_s", "event", "study", "kind", "phase", "round", "bytes", "text_bytes", "digest"}
_IN_JSON_ALONE = {"number", "previous", "modules", "sums", "server_signature", "server_key", "server_lines"}
_NOT_BESIDE = {*_IN_COLUMNS, *_IN_JSON_ALONE, "patients", "server_head", "server_head_is"}
_LONG = 64


def journal_table(bodies: Iterable[str]) -> Iterator[str]:
    """The journal for people.

    Args:
        bodies: JSON of each line.

    Yields:
        The heads of the columns, then a line for each body; times are local, phases counted from 1, bytes are
        those of arrays and texts together.

    Raises:
        DataError: a line is none of ours.
    """
    yield _row("when (local time)", "what", "phase/round", "bytes", "patients", "digest")
    study = ""
    for body in bodies:
        try:
            facts: dict[str, Any] = parse_json(body, finite=False)
            line = _line(facts)
            named = str(facts.get("study", ""))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
            raise DataError(
                "a line of the journal cannot be read",
                where="journal",
                remedy="find the first broken line with: cardionets-client journal verify",
            ) from error
        if named and named != study:
            study = named
            yield _plain(f"study {named[:16]}")
        yield _plain(line)


def _line(facts: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(float(facts["time_s"])).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    event = str(facts["event"])
    what = event
    if event in _WHAT:
        # An order that could not be read has no kind.
        what = f"{facts.get('kind') or 'unread order'}{_WHAT[event]}"
    place = (
        f"{int(facts['phase']) + 1}/{int(facts['round'])}" if "phase" in facts and "round" in facts else ""
    )
    size = f"{int(facts['bytes']) + int(facts.get('text_bytes', 0)):,}" if "bytes" in facts else ""
    people = int(facts.get("patients", 0))  # 0 behind a census, which is of nobody's records
    row = _row(
        when, what, place, size, f"{people:,}" if people else "", str(facts.get("digest", ""))[:_SHORT]
    )
    return "  ".join([row, *_beside(facts)]).rstrip()


def _beside(facts: dict[str, Any]) -> Iterator[str]:
    """What has no column: the code of a refusal, a later attempt, a step of a secure sum, and the like."""
    for name, value in sorted(facts.items()):
        if name in _NOT_BESIDE or (name == "attempt" and value in (0, 1)):
            continue
        text = str(value)
        yield text if name == "code" else f"{name} {text[:_SHORT] if len(text) == _LONG else text}"
    if facts.get("server_head_is") == "forged":
        yield "the coordinator's head was forged"


def _row(when: str, what: str, place: str, size: str, people: str, digest: str) -> str:
    return f"{when:19}  {what:18}  {place:>11}  {size:>13}  {people:>8}  {digest:{_SHORT}}".rstrip()


def _plain(line: str) -> str:
    """The line, in which nothing can steer a terminal."""
    return line if line.isprintable() else ascii(line)[1:-1]
