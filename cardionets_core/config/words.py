"""The words of our documents: every key, and every choice that a key has.

Comes in: the document models. Goes out: a set of words, none of which anybody but us has chosen, so that they
may stand in a log.
"""

from __future__ import annotations

import functools
import typing
from typing import Any

from cardionets_core.config.connection import ConnectionConfig
from cardionets_core.config.read import Document
from cardionets_core.config.site import SiteConfig
from cardionets_core.config.study import Study


@functools.cache
def document_words() -> frozenset[str]:
    """Keys and choices of ``site.yaml``, ``connection.yaml`` and a study, and the documents' names."""
    found = {"site.yaml", "connection.yaml", "study.yaml", "site", "connection", "study", "yaml"}
    seen: set[Any] = set()

    def walk(kind: Any) -> None:
        if kind in seen:
            return
        seen.add(kind)
        if isinstance(kind, type) and issubclass(kind, Document):
            for name, field in kind.model_fields.items():
                found.add(name)
                walk(field.annotation)
        if typing.get_origin(kind) is typing.Literal:
            found.update(choice for choice in typing.get_args(kind) if isinstance(choice, str))
            return
        for inner in typing.get_args(kind):
            try:
                walk(inner)
            except TypeError:
                continue  # a marker that cannot be hashed holds no document

    for document in (SiteConfig, ConnectionConfig, Study):
        walk(document)
    return frozenset(found)
