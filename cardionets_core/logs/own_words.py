"""What may be said of an error in a log: the program's own words, and "…" for all that was put into them.

Comes in: an exception as it was caught. Goes out: its texts, in which every word stands in the source of the
modules that the error came through; a file's name, an identifier or a value of somebody's record stood in no
source and becomes "…". Texts that fit no sentence of the source become the first line of the class's
docstring. It reads the program's source, never what the error holds beyond its three texts.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cardionets_core.errors import CardioNetsError
from cardionets_core.logs.events import OwnWords

PACKAGES = ("cardionets_core", "client", "server", "strategies", "simulation")
HIDDEN = "…"
LONGEST = 4_000
"""Characters of a text that is looked at; a longer one holds what others wrote."""
MOST_FRAMES = 12
FEWEST_LETTERS = 3
"""Of its own that a sentence must have: f"{a}: {b}" would fit everything and say nothing."""

Parts = tuple[str | None, ...]
"""A string of the source: its own pieces, and None for each hole."""
ShowPath = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The three texts of an error, as they may stand in a log."""

    what: OwnWords
    where: OwnWords
    remedy: OwnWords


def told_of(
    error: CardioNetsError, *, words: Collection[str] = (), show_path: ShowPath = lambda path: HIDDEN
) -> Told:
    """An error in the program's own words.

    Args:
        error: as it was caught.
        words: names that may stand in a hole: keys of documents, codes.
        show_path: says how an absolute path is written down.
    """
    sentences = [parts for file in _files(error.__traceback__) for parts in _sentences(file)]

    def own(text: str, depth: int = 2) -> str:
        found = _best(sentences, text) if len(text) <= LONGEST else None
        if found is not None:
            own_holes = iter([own(hole, depth - 1) if depth else HIDDEN for hole in found[1]])
            return "".join(next(own_holes) if part is None else part for part in found[0])
        return show_path(text) if text.startswith("/") else _word(text, words)

    what = own(error.what)
    if what == HIDDEN:
        what = (type(error).__doc__ or "").strip().partition("\n")[0]
    where, remedy = (own(text) if text else "" for text in (error.where, error.remedy))
    return Told(
        what=OwnWords(what),
        where=OwnWords("" if where == HIDDEN else where),
        remedy=OwnWords("" if remedy == HIDDEN else remedy),
    )


def kind_of(error: BaseException) -> OwnWords:
    """The name of an exception's class, which is a name of a program, never a value."""
    return OwnWords(f"{type(error).__module__}.{type(error).__qualname__}")


def places_of(error: BaseException) -> OwnWords:
    """Where an exception came through, the last place last: module, line and function; no text, no value."""
    found: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno} {code.co_qualname}")
        trace = trace.tb_next
    return OwnWords(" > ".join(found[-MOST_FRAMES:]))


def _files(trace: TracebackType | None) -> list[str]:
    """Source files of ours that an error came through, the deepest first."""
    found: list[str] = []
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in PACKAGES:
            found.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return list(dict.fromkeys(reversed(found)))


@functools.lru_cache(maxsize=128)
def _sentences(file: str) -> tuple[Parts, ...]:
    """Every string of a source file that says something."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ()
    return tuple(_strings(tree))


def _strings(tree: ast.AST) -> Iterator[Parts]:
    for node in ast.walk(tree):
        parts = _parts(node)
        if parts and sum(letter.isalpha() for part in parts if part for letter in part) >= FEWEST_LETTERS:
            yield tuple(parts)


def _parts(node: Any) -> list[str | None]:
    """The pieces and holes of a string; empty where the node is none."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        found: list[str | None] = []
        for value in node.values:
            found += _parts(value) if isinstance(value, ast.Constant) else [None]
        return found
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _parts(node.left), _parts(node.right)
        return (left or [None]) + (right or [None]) if left or right else []
    return []


def _best(sentences: list[Parts], text: str) -> tuple[Parts, list[str]] | None:
    """The sentence with the most pieces of its own that the text was made of, and what lies in its holes."""
    best: tuple[Parts, list[str]] | None = None
    most = 0
    for parts in sentences:
        weight = sum(len(part) for part in parts if part)
        if weight > most and (holes := _holes(parts, text)) is not None:
            best, most = (parts, holes), weight
    return best


def _holes(parts: Parts, text: str) -> list[str] | None:
    """What lies in the holes, or None where the text is not of this sentence."""
    holes: list[str] = []
    place, is_open = 0, False
    for number, part in enumerate(parts):
        if part is None:
            is_open = True
            continue
        last = number == len(parts) - 1
        if last and is_open:
            found = len(text) - len(part) if text.endswith(part) else -1
        else:
            found = text.find(part, place)
        if found < place or (not is_open and found != place):
            return None
        if is_open:
            holes.append(text[place:found])
        place, is_open = found + len(part), False
    if is_open:
        holes.append(text[place:])
    elif place != len(text):
        return None
    # Two holes side by side are one stretch of text: the first gets it, the others nothing.
    count = sum(part is None for part in parts)
    return holes + [""] * (count - len(holes))


def _word(text: str, words: Collection[str]) -> str:
    """The text where it holds names of the vocabulary alone."""
    names = [name for name in re.split(r"[.,: \[\]']+", text) if name]
    return text if not text or (names and all(name in words for name in names)) else HIDDEN
