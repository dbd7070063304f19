"""``card.html``: the model card as one page that loads nothing, with the look of the other pages.

Comes in: the card's Markdown, as ``card`` writes it: headings, paragraphs, lists, tables, bold and code.
Goes out: HTML. Every text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from markupsafe import Markup, escape

from cardionets_core.pages.own_files import own_folder
from cardionets_core.pages.page import render, templates_in

TEMPLATE = "card.html"
_MARKS = re.compile(r"\*\*(.+?)\*\*|`(.+?)`")
_RULE = re.compile(r"\|( --- \|)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A paragraph, a list or a table.

    Attributes:
        kind: ``text``, ``list`` or ``table``.
        text: of a paragraph, escaped.
        head: cells of a table's first row.
        rows: items of a list, or rows of cells.
    """

    kind: str
    text: str = ""
    head: Sequence[Markup] = ()
    rows: Sequence[Markup | Sequence[Markup]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands under one heading."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def card_page(card: str) -> str:
    """The page of a card."""
    head, *parts = card.split("\n## ")
    title, _, opening = head.removeprefix("# ").partition("\n")
    sections = []
    for part in parts:
        name, _, body = part.partition("\n")
        sections.append(Section(title=name, blocks=list(_blocks(body.splitlines()))))
    content = {
        "title": title,
        "opening": [_inline(line) for line in opening.splitlines() if line],
        "sections": sections,
    }
    return render(templates_in(own_folder("server.release", "templates")), TEMPLATE, content)


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    for kind, some in groupby(lines, key=_kind):
        if kind == "text":
            yield Block(kind=kind, text=_inline(" ".join(some)))
        elif kind == "list":
            yield Block(kind=kind, rows=[_inline(line.removeprefix("- ")) for line in some])
        elif kind == "table":
            head, *rows = [_cells(line) for line in some if not _RULE.fullmatch(line)]
            yield Block(kind=kind, head=head, rows=rows)


def _kind(line: str) -> str:
    if line.startswith("| "):
        return "table"
    if line.startswith("- "):
        return "list"
    return "text" if line else "blank"


def _cells(line: str) -> list[Markup]:
    return [_inline(cell) for cell in line.removeprefix("| ").removesuffix(" |").split(" | ")]


def _inline(text: str) -> Markup:
    """Escaped text with its bold and code."""
    parts, end = [], 0
    for match in _MARKS.finditer(text):
        parts.append(escape(text[end : match.start()]))
        name, content = ("b", match[1]) if match[1] else ("code", match[2])
        parts.append(Markup("<{0}>{1}</{0}>").format(Markup(name), content))
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])
