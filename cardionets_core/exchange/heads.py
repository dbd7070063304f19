"""Heads of journals on the wire: how far a journal has come, so that nobody rewrites one unseen.

Rows 0 and 10 of the walk. A head is the number of a journal's lines and the hash of the last one, which
stands for all of them. A site's head travels with each reply, the server's with each order, and beside it the
head that the server knows of the site. Here they are laid out, read strictly, and turned into the bytes that
are signed; nothing is signed or judged here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cardionets_core.errors import PeerError
from cardionets_core.exchange.fields import Scalar, text, whole

NO_LINES = "0" * 64
"""Hash of a journal without lines; the first line's predecessor."""
PURPOSE = "cardionets journal head 1"
"""For which a head is signed; a signature for anything else is none for it."""
PREFIX = "head/"
KNOWN = "head/known-"
MOST_TEXT = 4000
MOST_LINES = 2**53
_HASH = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"([0-9a-f]{2}){0,150}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far a journal has come.

    Attributes:
        lines: number of its lines; 0 where there is none, or none was sent.
        hash: of the last line.
        signature: by the journal's owner, hexadecimal; empty where the owner has no key.
        holder: whose key that is: the server's certificate (PEM), a site's public key (OpenSSH); or empty.
        agrees: of a site's head: whether the head that the order claimed of it lies on its chain.
    """

    lines: int = 0
    hash: str = NO_LINES
    signature: str = ""
    holder: str = ""
    agrees: bool = True


NO_HEAD = Head()


def site_journal(site: str) -> str:
    """The name under which a site's journal is signed."""
    return f"site/{site}"


def server_journal(study_digest: str) -> str:
    """The name under which the server's journal of a study is signed."""
    return f"server/{study_digest}"


def signed_content(head: Head, *, journal: str) -> bytes:
    """The bytes that the owner signs: which journal, how many lines, which hash."""
    content = {"hash": head.hash, "journal": journal, "lines": head.lines}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def reply_head_fields(head: Head) -> dict[str, Scalar]:
    """A site's head, as it travels with a reply."""
    return {**_fields(head), "head/agrees": int(head.agrees)}


def order_head_fields(server: Head, known: Head) -> dict[str, Scalar]:
    """The server's head and the one that it knows of the site, as they travel with an order."""
    return {**_fields(server), f"{KNOWN}lines": known.lines, f"{KNOWN}hash": known.hash}


def read_reply_head(fields: Mapping[str, Scalar]) -> Head:
    """The head of a reply.

    Raises:
        PeerError: a field is missing or is none of a head.
    """
    agrees = whole(fields, "head/agrees")
    if agrees not in (0, 1):
        raise PeerError("the field head/agrees is neither 0 nor 1", where="exchange")
    return _read(fields, PREFIX, signed=True, agrees=agrees == 1)


def read_order_heads(fields: Mapping[str, Scalar]) -> tuple[Head, Head]:
    """The server's head in an order, and the one that it claims to know of the site.

    Raises:
        PeerError: a field is missing or is none of a head.
    """
    return _read(fields, PREFIX, signed=True), _read(fields, KNOWN, signed=False)


def _fields(head: Head) -> dict[str, Scalar]:
    return {
        "head/lines": head.lines,
        "head/hash": head.hash,
        "head/signature": head.signature,
        "head/holder": head.holder,
    }


def _read(fields: Mapping[str, Scalar], prefix: str, *, signed: bool, agrees: bool = True) -> Head:
    lines, digest = whole(fields, f"{prefix}lines"), text(fields, f"{prefix}hash")
    signature = text(fields, f"{prefix}signature") if signed else ""
    holder = text(fields, f"{prefix}holder") if signed else ""
    fits = 0 <= lines < MOST_LINES and _HASH.fullmatch(digest) and (lines > 0 or digest == NO_LINES)
    if not fits or _SIGNATURE.fullmatch(signature) is None or not _is_text(holder):
        raise PeerError("the head of a journal cannot be read", where="exchange")
    return Head(lines=lines, hash=digest, signature=signature, holder=holder, agrees=agrees)


def _is_text(holder: str) -> bool:
    """Whether it can be a key or a certificate: these are ASCII."""
    return len(holder) <= MOST_TEXT and holder.isascii()
