"""Patterns that read person and visit off a path: ``{patient}/{visit}/*.xml`` (step 2 of the walk).

A placeholder stands for one or more characters of one folder or file name and takes as much as it can, so
``{patient}_{visit}.h5`` splits at the last underscore. ``*`` and ``?`` stay within a name, ``**`` does not. A
placeholder that stands twice must match the same text twice.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\{(?P<name>[a-z]+)\}|(?P<deep>\*\*/)|(?P<any>\*\*)|(?P<star>\*)|(?P<one>\?)")


class Pattern:
    """A pattern of ``site.yaml``, whose placeholders the document has checked."""

    def __init__(self, text: str) -> None:
        """Translate the text; upper and lower case are the same, for the sake of endings like ``.XML``.

        ``names_ending`` tells whether the last characters are fixed, so that the pattern alone decides.
        """
        self.text = text
        expression, end, seen = "", 0, set()
        for token in _TOKEN.finditer(text):
            expression += re.escape(text[end : token.start()])
            end = token.end()
            name = token["name"]
            if name is None:
                expression += {"deep": "(?:.*/)?", "any": ".*", "star": "[^/]*", "one": "[^/]"}[
                    str(token.lastgroup)
                ]
            else:
                expression += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
                seen.add(name)
        self.names_ending = not text.endswith(("*", "?", "}", "/"))
        self._expression = re.compile(expression + re.escape(text[end:]).rstrip("/"), re.I)

    def match(self, relative: str) -> dict[str, str] | None:
        """Placeholder to text, of a path relative to the folder with ``/`` between names; else None."""
        found = self._expression.fullmatch(relative)
        return found.groupdict() if found else None
