"""Whether a line that is read could have been written by our log, by the table that writers keep to.

Comes in: a line as it was parsed. Goes out: yes or no. Sentences of the program are known by their words,
each of which stands in the program's source. It is no proof of who wrote the line: whoever may write the file
can put our words together anew. The journal is chained; the log is not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from cardionets_core.logs.events import EVENTS, WITHHELD, OwnWords, Side, Value, told
from cardionets_core.logs.own_words import LONGEST, PACKAGES

SIDES = get_args(Side)
SENTENCES = ("what", "where", "remedy")
_FIRST = ("time", "level", "event", "side")
_TOKEN = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_LETTERS = re.compile(r"[^\W\d_]+")
_PART = re.compile(r"[a-z0-9.][a-z0-9._-]{0,80}|…", re.ASCII)
_LINE = re.compile(r":\d{1,9}\Z", re.ASCII)
_ESCAPE = re.compile(r"\\[nrt]")
_KIND = re.compile(r"[A-Za-z_][\w.<>]{0,200}", re.ASCII)
_PLACES = re.compile(r"[\w.?]+:\d+ [\w.<>]+(?: > [\w.?]+:\d+ [\w.<>]+)*", re.ASCII)


def is_ours(line: Mapping[str, Any]) -> bool:
    """Whether a line's event, level and fields are those of the table, each value of its field's kind."""
    event = line.get("event")
    if not isinstance(event, str) or event not in EVENTS or line.get("level") != EVENTS[event].level:
        return False
    if line.get("side") not in SIDES:
        return False
    fields = {name: _own(name, value) for name, value in line.items() if name not in _FIRST}
    if type(fields.pop(WITHHELD, 0)) is not int:
        return False
    try:
        return told(event, fields) == fields
    except (KeyError, TypeError):
        return False


def are_own_words(text: str) -> bool:
    """Whether every word of a text stands in the program's source, or is of a path as the log shows them."""
    return len(text) <= LONGEST and all(_is_own_piece(piece) for piece in text.split())


def _own(name: str, value: Any) -> Value:
    if not isinstance(value, str):
        return value  # type: ignore[no-any-return]
    fits = {"error": _KIND.fullmatch, "at": _PLACES.fullmatch}.get(name)
    is_own = fits(value) is not None if fits else name in SENTENCES and are_own_words(value)
    return OwnWords(value) if is_own else value


def _is_own_piece(piece: str) -> bool:
    tokens, words = _source()
    bare = _LINE.sub("", piece.strip("'\"`(),;:"))
    if "/" in bare and all(token in tokens for token in _TOKEN.findall(bare.partition("/")[0])):
        return all(_PART.fullmatch(part) for part in bare.split("/")[1:] if part)
    for token in _TOKEN.findall(bare):
        is_plain = not any(letter.isdigit() for letter in token)
        if token not in tokens and not (is_plain and all(word in words for word in _LETTERS.findall(token))):
            return False
    return True


@functools.cache
def _source() -> tuple[frozenset[str], frozenset[str]]:
    """All tokens, and all words of letters alone, of the program's source: 0.2 s, once."""
    root = Path(__file__).resolve().parents[2]
    text = "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    )
    text = _ESCAPE.sub(" ", text)
    return frozenset(_TOKEN.findall(text)), frozenset(_LETTERS.findall(text))
