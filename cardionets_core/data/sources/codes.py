"""Cells that hold several codes: split at a separator, or a list written as text (step 2 of the walk).

Lists come from programs: Python's ``['I50', 'I10']``, JSON's ``["I50", "I10"]``, a dictionary of codes to
weights. They are taken apart by their grammar, never evaluated.
"""

from __future__ import annotations

import ast
import json
import re

_MAXIMUM_CHARACTERS = 20_000
_QUOTED = r"""(?:'[^'\\]*'|"[^"\\]*")"""
_PLAIN_LIST = re.compile(rf"\[\s*(?:{_QUOTED}(?:\s*,\s*{_QUOTED})*)?\s*\]")
_ITEM = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")


def literal_codes(text: str) -> list[str]:
    """The strings of a list, or the keys of a dictionary, that is written as text; else nothing.

    Text that is no list, or of more than 20,000 characters, gives an empty list too.
    """
    if not text.startswith(("[", "{")) or len(text) > _MAXIMUM_CHARACTERS:
        return []
    if _PLAIN_LIST.fullmatch(text):  # nearly all there are, and 20 times faster than a parser
        return [single or double for single, double in _ITEM.findall(text)]
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return [code for code in found if isinstance(code, str)] if isinstance(found, (list, dict)) else []
    return []


def codes_in(cell: str, *, separator: str) -> list[str]:
    """Codes of a cell: a list as text, or codes between separators."""
    return literal_codes(cell) if cell.startswith(("[", "{")) else cell.split(separator)
