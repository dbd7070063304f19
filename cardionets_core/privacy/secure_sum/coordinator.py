"""The server's side of a secure sum: it collects, passes on, and opens nothing but the sum (rows 10 to 12).

Comes in: the sites' messages, each checked as it comes, and their masked vectors. Goes out: the server's
messages and the sum of those who survived, in the ring. Sites may drop out at any step, as long as as many as
the threshold are left. A message that is refused changes nothing: the site that is named can be left out, or
asked again. The same message may come twice.

It sends nothing and keeps nothing on a disk: a server that starts again hands the stored messages in once
more, in any order within a step. Sites check everything by themselves, so this side's checks protect the sum,
not the sites.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from cardionets_core.privacy.secure_sum import unmasking, vouching
from cardionets_core.privacy.secure_sum.encoding import Message
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.privacy.secure_sum.messages import (
    Confirmation,
    Envelope,
    KeyAdvert,
    Participants,
    ShareBundle,
    ShareDelivery,
    Survivors,
    UnmaskReply,
    UnmaskRequest,
)
from cardionets_core.privacy.secure_sum.refusals import refusal
from cardionets_core.privacy.secure_sum.shares import share_digest
from cardionets_core.privacy.secure_sum.terms import Terms

M = TypeVar("M", bound=Message)
C = TypeVar("C")


class Coordinator:
    """One session on the server: ``add_*`` as messages come, and a ``close_*`` at the end of each step."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._session = terms.session.digest()
        self._adverts: dict[str, KeyAdvert] = {}
        self._participants: Participants | None = None
        self._listed = b""
        self._bundles: dict[str, ShareBundle] = {}
        self._published: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._dealers: tuple[str, ...] | None = None
        self._survivors: tuple[str, ...] | None = None
        self._confirmations: dict[str, Confirmation] = {}
        self._replies: dict[str, UnmaskReply] = {}

    def add_advert(self, advert: KeyAdvert) -> None:
        """Take a site's keys.

        Raises:
            SecureSumError: they are not the site's, unsound, or there already under another name; or the list
                is closed.
        """
        self._open_until(self._participants)
        vouching.check_advert(advert, self._terms)
        others = [entry for site, entry in self._adverts.items() if site != advert.site]
        vouching.check_distinct([*others, advert])
        self._add(self._adverts, advert.site, advert)

    def close_adverts(self) -> Participants:
        """Who takes part: all whose keys came. To be sent to each of them.

        Raises:
            SecureSumError: ``too-few-sites``, or ``threshold-too-low``: so many that the threshold is not
                more than half of them.
        """
        if self._participants is None:
            self._terms.check_number(len(self._adverts))
            self._participants = Participants(
                session=self._session,
                threshold=self._terms.threshold,
                adverts=tuple(self._adverts[site] for site in sorted(self._adverts)),
            )
            self._listed = vouching.list_digest(self._participants)
            self._adverts = {advert.site: advert for advert in self._participants.adverts}
        return self._participants

    def add_bundle(self, bundle: ShareBundle) -> None:
        """Take the shares that a site deals.

        Raises:
            SecureSumError: they are not for exactly those who take part.
        """
        participants, site = self._closed(self._participants), bundle.site
        self._open_until(self._dealers)
        self._check_sender(bundle.session, site, participants.names)
        if bundle.participants != self._listed:
            raise refusal("participants-differ", f"{site} dealt shares for another list", site=site)
        if [entry.holder for entry in bundle.envelopes] != [
            name for name in participants.names if name != site
        ]:
            raise refusal("envelope-invalid", f"{site} did not deal to each of the others", site=site)
        marks = {(entry.session, entry.participants, entry.dealer) for entry in bundle.envelopes}
        if marks != {(self._session, self._listed, site)}:
            raise refusal(
                "envelope-invalid", f"an envelope of {site} is of another session or site", site=site
            )
        self._add(self._bundles, site, bundle)
        self._published[site, site] = bundle.seed_share_check, bundle.key_share_check
        for entry in bundle.envelopes:
            self._published[site, entry.holder] = entry.seed_share_check, entry.key_share_check

    def close_bundles(self) -> dict[str, ShareDelivery]:
        """The envelopes to each site whose shares came; they mask together, the others are out.

        Raises:
            SecureSumError: ``too-few-sites``.
        """
        self._closed(self._participants)
        if self._dealers is None:
            self._check_enough(self._bundles, "dealt shares")
            self._dealers = tuple(sorted(self._bundles))
        boxes: dict[str, list[Envelope]] = {holder: [] for holder in self._dealers}
        for dealer in self._dealers:
            for entry in self._bundles[dealer].envelopes:
                if entry.holder in boxes:
                    boxes[entry.holder].append(entry)
        return {
            holder: ShareDelivery(session=self._session, holder=holder, envelopes=tuple(box))
            for holder, box in boxes.items()
        }

    def close_masked(self, sites: Collection[str]) -> Survivors:
        """Whose masked vectors lie whole with the caller. To be sent to each of them.

        Args:
            sites: their names; the list cannot be changed later.

        Raises:
            SecureSumError: ``too-few-sites``, ``site-unknown``; ``survivors-differ``: it was closed with
            others.
        """
        dealers, names = self._closed(self._dealers), tuple(sorted(set(sites)))
        for site in names:
            self._check_sender(self._session, site, dealers)
        if self._survivors not in (None, names):
            raise refusal("survivors-differ", "the list of survivors is closed, and was another one")
        self._check_enough(names, "masked")
        self._survivors = names
        return Survivors(session=self._session, sites=names)

    def add_confirmation(self, confirmation: Confirmation) -> None:
        """Take a site's signature over the survivors.

        Raises:
            SecureSumError: it is not a survivor's, or over something else.
        """
        survivors = self._closed(self._survivors)
        content = vouching.survivors_content(
            self._session,
            participants=self._listed,
            dealers=self._closed(self._dealers),
            survivors=survivors,
        )
        vouching.check_confirmation(confirmation, content, self._terms, survivors=survivors)
        self._confirmations[confirmation.site] = confirmation

    def unmask_request(self) -> UnmaskRequest:
        """The list and all signatures over it. To be sent to those who signed.

        Raises:
            SecureSumError: ``too-few-sites``.
        """
        survivors = self._closed(self._survivors)
        self._check_enough(self._confirmations, "signed")
        return UnmaskRequest(
            session=self._session,
            sites=survivors,
            confirmations=tuple(self._confirmations[site] for site in sorted(self._confirmations)),
        )

    def add_reply(self, reply: UnmaskReply) -> None:
        """Take the shares that a site tells; each must be the one that its dealer published.

        Raises:
            SecureSumError: ``share-wrong`` with the site's name, or the site is no survivor.
        """
        survivors, dealers, site = self._closed(self._survivors), self._closed(self._dealers), reply.site
        self._check_sender(reply.session, site, survivors)
        wanted = [(dealer, "seed" if dealer in survivors else "key") for dealer in dealers]
        if [(entry.dealer, entry.kind) for entry in reply.shares] != wanted:
            raise refusal("share-wrong", f"{site} told other shares than it was asked for", site=site)
        for entry in reply.shares:
            found = share_digest(
                entry.share, session=self._session, dealer=entry.dealer, holder=site, kind=entry.kind
            )
            if found != self._published[entry.dealer, site][entry.kind == "key"]:
                raise refusal(
                    "share-wrong",
                    f"{site} told a share of {entry.dealer} that is not the one it got",
                    site=site,
                )
        self._add(self._replies, site, reply)

    def total(self, vectors: Iterable[tuple[str, Ring]]) -> Ring:
        """The sum of the survivors' vectors.

        Args:
            vectors: each survivor's name and masked vector, one after the other.

        Returns:
            ``uint32`` or ``uint64`` [N], for ``FixedPoint.decode``.

        Raises:
            SecureSumError: ``too-few-sites``; ``secret-wrong`` with the dealer's name; a vector does not fit.
        """
        survivors = self._closed(self._survivors)
        opened = unmasking.opened_secrets(
            self._replies, self._adverts, survivors=survivors, threshold=self._terms.threshold
        )
        masks = unmasking.masks_left(opened, self._adverts, survivors=survivors)
        return unmasking.opened_sum(vectors, masks, survivors=survivors)

    def _check_sender(self, session: bytes, site: str, allowed: Collection[str]) -> None:
        vouching.check_session(session, self._terms, site=site)
        if site not in allowed:
            raise refusal("site-unknown", f"{site} is not among those who are asked at this step", site=site)

    def _check_enough(self, found: Collection[object], did: str) -> None:
        if len(found) < self._terms.threshold:
            raise refusal(
                "too-few-sites", f"{len(found)} sites {did} where {self._terms.threshold} are needed"
            )

    @staticmethod
    def _add(found: dict[str, M], site: str, message: M) -> None:
        if found.setdefault(site, message) != message:
            raise refusal("already-answered", f"{site} answered twice, and not the same", site=site)

    @staticmethod
    def _closed(found: C | None) -> C:
        if found is None:
            raise refusal("out-of-order", "the step before this one is not closed yet")
        return found

    @staticmethod
    def _open_until(closed: object) -> None:
        if closed is not None:
            raise refusal("out-of-order", "the step is closed, and the message came too late")
