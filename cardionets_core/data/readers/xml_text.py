"""The one safe door for XML recordings (step 2 of the walk).

Comes in: the path of a file that a stranger may have written. Goes out: a small tree without namespaces. A
document type may be named, as GE MUSE does, but it is never fetched; declarations inside the file, entities,
deep nesting and floods of elements are refused. Does not know any format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 8_000_000
"""The largest real file here has 0.5 MB; a minute of twelve leads at 1000 Hz in UTF-16 has about 7 MB."""
MAXIMUM_DEPTH = 64
MAXIMUM_ELEMENTS = 200_000
CUT_OFF = {
    expat.errors.codes[message]
    for message in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
    )
}
"""What the parser calls a file that ends before its root element does."""


class _Tree:
    """Builds the tree as the elements pass, names without namespaces, and stops at the bounds."""

    def __init__(self) -> None:
        self._builder = TreeBuilder()
        self._depth = self._elements = 0
        self.data, self.close = self._builder.data, self._builder.close

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAXIMUM_DEPTH or self._elements > MAXIMUM_ELEMENTS:
            raise RecordRefused("ecg-unreadable", "the elements are nested too deeply, or are too many")
        plain = {_without_namespace(key): value for key, value in attributes.items()}
        self._builder.start(_without_namespace(name), plain)

    def end(self, name: str) -> None:
        self._depth -= 1
        self._builder.end(_without_namespace(name))


class _Parser(DefusedXMLParser):
    """Tolerates that a document type is named, which fetches nothing; refuses one that declares something."""

    def defused_start_doctype_decl(self, name: str, system: Any, public: Any, has_internal: bool) -> None:
        if has_internal:
            raise RecordRefused("ecg-unreadable", "the file declares its own document type or an entity")


def parse_xml(path: Path) -> Element:
    """The root of the tree of one file; tags and attributes without their namespaces.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable`` or ``ecg-truncated``.
    """
    content = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES)
    parser = _Parser(target=_Tree(), encoding=true_encoding(content), forbid_dtd=True)
    try:
        parser.feed(content)
        root: Element = parser.close()
    except ParseError as error:
        reason = "ecg-truncated" if error.code in CUT_OFF else "ecg-unreadable"
        raise RecordRefused(reason, f"not well-formed XML: {expat.ErrorString(error.code)}") from error
    except DefusedXmlException as error:
        raise RecordRefused("ecg-unreadable", "the file declares or names something outside") from error
    except (LookupError, ValueError, TypeError) as error:
        raise RecordRefused("ecg-unreadable", "the text's encoding is not known") from error
    return root


def has_element(head: bytes, name: str) -> bool:
    """Whether an element of this name, in any namespace, begins in the first bytes of a file."""
    text = head.decode(true_encoding(head) or "latin-1", "replace")
    return re.search(rf"<(?:[\w.-]+:)?{re.escape(name)}[\s/>]", text) is not None


@contextmanager
def refusals_of(path: Path) -> Iterator[None]:
    """Adds the file to refusals that were raised without it; it is for the site's own screen only."""
    try:
        yield
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal


def text_of(parent: Element, path: str) -> str:
    """Stripped text of a descendant; empty where it is absent or empty."""
    return (parent.findtext(path) or "").strip()


def true_encoding(content: bytes) -> str | None:
    """The encoding where the bytes show it, whatever the declaration says; None to trust the declaration.

    A file that was converted on its way often keeps the declaration of the original.
    """
    if content.startswith((b"\xff\xfe", b"<\0")):
        return "utf-16le"
    if content.startswith((b"\xfe\xff", b"\0<")):
        return "utf-16be"
    declaration = content[:200].partition(b"?>")[0].lower()
    if content.startswith(b"\xef\xbb\xbf") or (content.startswith(b"<?xml") and b"utf-16" in declaration):
        return "utf-8"
    return None


def _without_namespace(name: str) -> str:
    return name.rpartition("}")[2]
