"""The site's own log, ``client.log`` beside ``site.yaml``: what its service and its orders did.

Comes in: the site's folder, and errors as they were caught. Goes out: lines of ``cardionets_core.logs``. An
error is told by its code and in the program's own words, beside them its facts of the kinds that the table of
events has. Of paths only those that the program itself has named are written down, relative to the site's
folder, since names of data files can be patients'.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from cardionets_core.errors import CardioNetsError, error_codes
from cardionets_core.logs.events import Value
from cardionets_core.logs.log import EventLog
from cardionets_core.logs.own_words import kind_of, places_of, told_of

if TYPE_CHECKING:
    from cardionets_core.config.site import SiteConfig

LOG = "client.log"
DOCUMENTS = ("site.yaml", "connection.yaml")
OURS = (
    "approvals", "cache", "client.log", "logs", "node", "package", "secret", "service", "state", "trust",
)  # fmt: skip
"""Folders and files of a site's folder that the program names, and what it puts into them."""
DATA, ELSEWHERE = "<data>/…", "<elsewhere>/…"
_PART = re.compile(r"[a-z0-9.][a-z0-9._-]{0,80}", re.ASCII)
_LINE = re.compile(r":\d{1,9}\Z")


def site_log(root: Path, *, site: str = "") -> EventLog:
    """The log of a site's folder, cut as its ``connection.yaml`` says where there is one.

    Args:
        root: the folder of ``site.yaml``.
        site: its name.
    """
    from cardionets_core.config.connection import SiteFolder
    from cardionets_core.config.workspace import Logs

    folder = SiteFolder(root.absolute())
    try:
        logs = folder.config().logs if folder.connection_yaml.is_file() else Logs()
    except CardioNetsError:
        logs = Logs()  # a broken document must not cost the line that tells of it
    return EventLog(
        path=folder.root / LOG, side="client", site=site, maximum_bytes=logs.maximum_bytes, keep=logs.keep
    )


def log_error(
    log: EventLog, error: Exception, *, root: Path, config: SiteConfig | None, code: str, **round: Value
) -> bool:
    """Write down why an order ended.

    Args:
        log: of the site.
        error: as it was caught.
        root: the site's folder.
        config: what the site permits; None where its document is broken.
        code: that leaves.
        round: fields of the order.

    Returns:
        Whether the log took it.
    """
    if not isinstance(error, CardioNetsError):
        return log.write("order-failed", code=code, error=kind_of(error), at=places_of(error), **round)
    told = told_of(
        error, words=_vocabulary(), show_path=lambda path: shown_path(path, root=root, config=config)
    )
    return log.write(
        "order-refused",
        code=code,
        what=told.what,
        where=told.where,
        remedy=told.remedy,
        **error.facts,
        **round,
    )


def shown_path(text: str, *, root: Path, config: SiteConfig | None) -> str:
    """How an absolute path may stand in the log.

    Args:
        text: the path, with the number of a line behind it or without.
        root: the site's folder.
        config: names the folders of data; None where its document is broken.

    Returns:
        The path relative to the site's folder where the program itself named it, else only where it lies.
    """
    found = _LINE.search(text)
    line = found.group() if found else ""
    path = PurePath(os.path.normpath(text[: len(text) - len(line)]))
    base = PurePath(os.path.normpath(root.absolute()))
    parts = path.relative_to(base).parts if path.is_relative_to(base) else ()
    if len(parts) == 1 and parts[0] in DOCUMENTS:
        return parts[0] + line
    if config is not None and any(
        path.is_relative_to(os.path.normpath(data)) for data in _paths_in(config.source)
    ):
        return DATA
    if parts and parts[0] in OURS and all(_PART.fullmatch(part) for part in parts):
        return "/".join(parts) + line
    folders = {} if config is None else {n: getattr(config.folders, n) for n in ("cache", "state", "secret")}
    for name, place in folders.items():
        folder = os.path.normpath(place)
        if path.is_relative_to(folder):
            inner = path.relative_to(folder).parts
            told = inner if all(_PART.fullmatch(part) for part in inner) else ("…",)
            return "/".join([f"<{name}>", *told]) + line
    if path == base:
        return "."
    return DATA if parts else ELSEWHERE


def _paths_in(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _paths_in(item)
    elif isinstance(value, dict):
        yield from _paths_in(list(value.values()))
    elif hasattr(type(value), "model_fields"):
        yield from _paths_in([getattr(value, name) for name in type(value).model_fields])


def _vocabulary() -> frozenset[str]:
    from cardionets_core.config.words import document_words

    return document_words() | frozenset(error_codes())
