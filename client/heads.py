"""The head of the site's journal, signed; and what the order says of both sides' journals (rows 0 and 9).

Comes in: the line that a reply has just got, the order that it answers, the site's folders. Goes out: the
head that travels with the reply, and facts on the server's head for the line. The key is ``trust/site.key``,
which the coordinator has registered; a site without one (in simulation, or in one process) makes a key of its
own under its state folder on first use. A head that contradicts this site's journal stops nothing: it is told
to both sides, loudly, since a folder that was restored from a backup looks the same.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardionets_core.audit import journal
from cardionets_core.errors import CardioNetsError, OrderRefusedError
from cardionets_core.exchange.heads import (
    PURPOSE,
    Head,
    server_journal,
    signed_content,
    site_journal,
)
from cardionets_core.exchange.messages import Order
from cardionets_core.trust.certificates import key_of, read_certificate
from cardionets_core.trust.keys import (
    PrivateKey,
    make_key,
    private_openssh,
    public_openssh,
    read_private,
)
from cardionets_core.trust.secret_files import write_file
from cardionets_core.trust.signatures import fits, sign
from cardionets_core.trust.validity import check_authority
from client.journal import JOURNAL

OWN_KEY = "journal.key"
"""In the folder of states, of a site that was never admitted anywhere; mode 0600."""
SITE_KEY = Path("trust") / "site.key"
AUTHORITY = Path("trust") / "ca.crt"
Facts = dict[str, str | int | float]


def journal_key(root: Path, state: Path) -> PrivateKey:
    """The key that signs the heads of this site's journal.

    Args:
        root: the folder of ``site.yaml``.
        state: the folder of states; receives a key where the site has none.

    Raises:
        CertificateInvalidError: the key's file is torn.
        StorageFailedError: the disk did not take a new key.
    """
    path = root / SITE_KEY
    if path.is_file():
        return read_private(path.read_bytes(), where=str(path))
    path = state / OWN_KEY
    if not path.is_file():
        state.mkdir(parents=True, exist_ok=True)
        try:
            write_file(path, private_openssh(make_key()), secret=True, replace=False)
        except FileExistsError:
            pass  # another process of this site was first
        else:
            text = "%s: the site has no key of its own; one was made to sign the heads of its journal"
            logging.getLogger("cardionets.client").info(text, path)
    return read_private(path.read_bytes(), where=str(path))


def held_key(root: Path, state: Path) -> PrivateKey | None:
    """The key that signs, where there is one already."""
    for path in (root / SITE_KEY, state / OWN_KEY):
        if path.is_file():
            return read_private(path.read_bytes(), where=str(path))
    return None


def signed_head(lines: int, digest: str, *, site: str, key: PrivateKey, agrees: bool) -> Head:
    """The head of this site's journal, as it travels.

    Args:
        lines: number of the last line.
        digest: its hash.
        site: the site's name.
        key: the site's.
        agrees: whether the head that the server claims to know lies on the chain.
    """
    bare = Head(lines=lines, hash=digest)
    signature = sign(key, signed_content(bare, journal=site_journal(site)), purpose=PURPOSE)
    holder = public_openssh(key.public_key())
    return Head(lines=lines, hash=digest, signature=signature.hex(), holder=holder, agrees=agrees)


def known_head_agrees(order: Order, state: Path) -> bool:
    """Whether the head that the server claims to know of this site lies on the site's chain."""
    return journal.hash_of(state / JOURNAL, order.known_head.lines) == order.known_head.hash


def server_head_facts(order: Order, root: Path) -> Facts:
    """The server's head, for the line of the reply to its order.

    ``server_head_is`` says what it is worth: ``signed`` by a key that the consortium's authority names,
    ``unsigned`` (the coordinator has no key at hand), ``not-checked`` where this site knows no authority.

    Raises:
        OrderRefusedError: it is signed, but not by the consortium's server.
    """
    head, path = order.head, root / AUTHORITY
    facts: Facts = {"server_lines": head.lines, "server_head": head.hash}
    if not head.lines:
        return {}
    if not head.signature:
        return {**facts, "server_head_is": "unsigned"}
    facts["server_signature"] = head.signature
    if not path.is_file():
        return {**facts, "server_head_is": "not-checked"}
    try:
        certificate = read_certificate(head.holder.encode(), where="order")
        authority = read_certificate(path.read_bytes(), where=str(path))
        check_authority(certificate, authority, what="the certificate beside the head", where="order")
        key = key_of(certificate)
        content = signed_content(head, journal=server_journal(order.name.study_digest))
        good = fits(key, bytes.fromhex(head.signature), content, purpose=PURPOSE)
    except (CardioNetsError, ValueError) as error:
        raise _forged() from error
    if not good:
        raise _forged()
    return {**facts, "server_key": public_openssh(key), "server_head_is": "signed"}


def _forged() -> OrderRefusedError:
    return OrderRefusedError(
        "the head of the coordinator's journal is not signed by the consortium's server",
        where="order",
        remedy="ask the coordinator; compare the authority's fingerprint",
    )
