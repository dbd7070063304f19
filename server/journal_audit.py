"""The journal of a finished or running study, looked at from outside.

Comes in: a run folder. Goes out: whether the chain is whole and holds the heads that a site knew, and the
heads of the sites' journals that stand in it. Changes nothing, and may run beside the study.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.audit.against import Witnessed, heads_json, read_heads, verify_against
from cardionets_core.audit.journal import bodies
from cardionets_core.errors import FolderMissingError
from cardionets_core.exchange.heads import PURPOSE, Head, server_journal, signed_content, site_journal
from cardionets_core.trust.signatures import fits
from server.head_trust import head_trust
from server.heads import SITE_HEAD
from server.reply_journal import JOURNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedJournal:
    """A run folder's journal.

    Attributes:
        path: of the file.
        name: under which its heads are signed.
    """

    path: Path
    name: str


def open_journal(run: Path) -> OpenedJournal:
    """The journal of a run folder.

    Raises:
        FolderMissingError: the folder holds no study's journal.
    """
    path, study = run / JOURNAL, run / "study.json"
    if not path.is_file() or not study.is_file():
        raise FolderMissingError(
            f"{run} holds no study's journal",
            where=str(path),
            remedy="name the run folder: DIR/runs/NAME-DIGEST, see `cardionets-server status DIR`",
        )
    digest = hashlib.sha256(study.read_text(encoding="utf-8").rstrip("\n").encode()).hexdigest()
    return OpenedJournal(path=path, name=server_journal(digest))


def verified(opened: OpenedJournal, *, against: Path | None) -> dict[str, Any]:
    """Check the chain, and the heads that a site has exported.

    Returns:
        JSON-ready: ``lines``, ``whole``; with a file also ``heads`` and how many of them are ``signed``.

    Raises:
        DataError: the chain is broken, or does not hold a head that the site knew.
    """
    heads = [] if against is None else read_heads(against)
    key = head_trust(opened.path.parent).public_key() if heads else None

    def proves(head: Witnessed) -> bool:
        content = signed_content(Head(lines=head.lines, hash=head.hash), journal=head.journal)
        try:
            signature = bytes.fromhex(head.signature)
        except ValueError:
            return False
        return key is not None and fits(key, signature, content, purpose=PURPOSE)

    found = verify_against(opened.path, heads, journal=opened.name, proves=proves)
    content: dict[str, Any] = {"lines": found.lines, "whole": True}
    return content if against is None else content | {"heads": found.heads, "signed": found.signed}


def exported(opened: OpenedJournal, *, site: str = "") -> dict[str, Any]:
    """The heads of sites' journals that the server has written down.

    Args:
        opened: the journal.
        site: of this site only; of all by default.
    """
    found = [
        Witnessed(
            journal=site_journal(str(body["site"])),
            lines=int(body["lines"]),
            hash=str(body["head"]),
            signature=str(body["signature"]),
            key=str(body["key"]),
            time_s=float(body["time_s"]),
        )
        for body in bodies(opened.path)
        if body.get("event") == SITE_HEAD and site in ("", body["site"])
    ]
    return heads_json(found, holder=opened.name)
