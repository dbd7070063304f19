"""The heads of both sides' journals at the coordinator (rows 0 and 10 of the walk).

Comes in: each reply with the head of its site's journal. Goes out: a line in the server's journal with that
head, and with each order the server's own head, signed, beside the head that the server knows of the site. A
head that is not the site's is a refused reply. One that contradicts an earlier head is a loud line and a
warning, and the study goes on: a site that was restored from a backup looks the same, and both histories stay
on record.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cardionets_core.audit import journal
from cardionets_core.errors import CertificateInvalidError, ReplyRefusedError
from cardionets_core.exchange.heads import (
    NO_HEAD,
    PURPOSE,
    Head,
    server_journal,
    signed_content,
    site_journal,
)
from cardionets_core.exchange.messages import Order, Reply
from cardionets_core.trust.keys import PublicKey, fingerprint, public_openssh, read_public
from cardionets_core.trust.signatures import fits
from server.head_trust import HeadTrust

SITE_HEAD = "site-head"
CONTRADICTED = "site-journal-contradicted"
Facts = dict[str, str | int | float]


class SiteHeads:
    """What the server knows of the sites' journals, and tells of its own.

    Args:
        path: the server's journal; heads that stand in it are known.
        append: writes a line of it.
        study_digest: names the server's journal.
        trust: keys.
    """

    def __init__(
        self, path: Path, append: Callable[[str, Facts], None], *, study_digest: str, trust: HeadTrust
    ) -> None:
        self._path = path
        self._append = append
        self._journal = server_journal(study_digest)
        self._trust = trust
        self._known: dict[str, Head] = {}
        self._first_keys: dict[str, str] = {}
        self._own = NO_HEAD
        self.warn: Callable[[Order, str], None] = lambda order, text: None
        """Called with what a person should know."""
        for body in journal.bodies(path) if path.exists() else ():
            if body.get("event") == SITE_HEAD:
                self._learn(body["site"], Head(lines=body["lines"], hash=body["head"]), body["key_digest"])
        # Every reply to this process is younger than what an earlier one has heard.
        self._floor = dict(self._known)

    def of_order(self, site: str) -> tuple[Head, Head]:
        """The server's head now, and the head that it knows of a site."""
        lines, digest = journal.head(self._path)
        if (lines, digest) != (self._own.lines, self._own.hash):
            self._own = self._trust.signed(Head(lines=lines, hash=digest), journal=self._journal)
        return self._own, self._known.get(site, NO_HEAD)

    def take(self, reply: Reply, order: Order, site: str) -> None:
        """Check the head of a reply and write it down.

        A site whose key is registered signs every reply but a refusal, which it may have to send without. The
        key of any other is taken from its first reply, and must stay.

        Args:
            reply: as it came; refusals too.
            order: that it answers, with the heads that went with it.
            site: the sender, by the server's own knowledge.

        Raises:
            ReplyRefusedError: the head is absent, or not signed by the site.
        """
        head, registered = reply.head, self._trust.site_key(site)
        if not head.lines:
            if registered is not None and not reply.code:
                raise _refused(site, "its reply came without the head of its journal")
            return
        key = self._key(head, site, registered)
        content = signed_content(head, journal=site_journal(site))
        if not fits(key, bytes.fromhex(head.signature), content, purpose=PURPOSE):
            raise _refused(site, "the head of its journal is not signed by it")
        for contradiction in self._contradictions(head, order, site):
            self._append(
                CONTRADICTED,
                {
                    "site": site,
                    "what": contradiction,
                    "lines": head.lines,
                    "head": head.hash,
                    "known_lines": self._known.get(site, NO_HEAD).lines,
                    "known_head": self._known.get(site, NO_HEAD).hash,
                },
            )
            self.warn(order, f"the journal of {site} contradicts what it was before: {contradiction}")
        self._append(
            SITE_HEAD,
            {
                "site": site,
                "lines": head.lines,
                "head": head.hash,
                "signature": head.signature,
                "key": public_openssh(key),
                "key_digest": fingerprint(key),
                "key_is": "first-seen" if registered is None else "registered",
            },
        )
        self._learn(site, head, fingerprint(key))

    def _key(self, head: Head, site: str, registered: PublicKey | None) -> PublicKey:
        try:
            given = read_public(head.holder.encode(), where="reply")
        except CertificateInvalidError as error:
            raise _refused(site, "the head of its journal names no key") from error
        wanted = self._first_keys.get(site) if registered is None else fingerprint(registered)
        if wanted is not None and fingerprint(given) != wanted:
            raise _refused(site, "the head of its journal is signed by another key than the site's")
        return given

    def _contradictions(self, head: Head, order: Order, site: str) -> list[str]:
        """What does not fit what was known.

        A late reply may be older than the newest head, but not than its order.
        """
        found = []
        known = self._known.get(site, NO_HEAD)
        floor = max(order.known_head.lines, self._floor.get(site, NO_HEAD).lines)
        if head.lines <= floor:
            found.append("it has become shorter, or was begun anew")
        elif head.lines == known.lines and head.hash != known.hash:
            found.append("another line stands in the same place")
        if not head.agrees:
            found.append("the site does not find the head that the server knows of it")
        if found:
            # From here on the new history is what the next head is compared with.
            self._known.pop(site, None)
            self._floor.pop(site, None)
        return found

    def _learn(self, site: str, head: Head, key_digest: str) -> None:
        self._first_keys.setdefault(site, key_digest)
        if head.lines >= self._known.get(site, NO_HEAD).lines:
            self._known[site] = Head(lines=head.lines, hash=head.hash)


def _refused(site: str, what: str) -> ReplyRefusedError:
    return ReplyRefusedError(
        f"site {site}: {what}", where="reply", remedy="ask the site which key and version it runs"
    )
