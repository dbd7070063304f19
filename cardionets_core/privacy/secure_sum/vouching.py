"""Who vouches for what: signatures of the sites over their keys and over the list of survivors.

Comes in: messages of a session and its terms. Goes out: nothing, where all is as it must be; else a refusal
that names the site. The same checks are made by every site, which trusts no server, and by the server, which
would rather find a liar before the sites do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from cardionets_core.privacy.secure_sum.agreement import check_public
from cardionets_core.privacy.secure_sum.masks import framed
from cardionets_core.privacy.secure_sum.messages import Confirmation, KeyAdvert, Participants
from cardionets_core.privacy.secure_sum.refusals import refusal
from cardionets_core.privacy.secure_sum.terms import Terms
from cardionets_core.trust.keys import PrivateKey
from cardionets_core.trust.signatures import fits, sign

_ADVERT = "secure-sum-keys"
_SURVIVORS = "secure-sum-survivors"


def check_session(session: bytes, terms: Terms, *, site: str = "") -> None:
    """Whether a message is of this session.

    Raises:
        SecureSumError: ``session-differs``.
    """
    if session != terms.session.digest():
        of = f" from {site}" if site else ""
        raise refusal("session-differs", f"a message{of} belongs to another session", site=site)


def check_names(names: Sequence[str]) -> None:
    """Whether names stand in order and none twice, so that one set of sites has one list.

    Raises:
        SecureSumError: ``site-twice`` or ``malformed``.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refusal("site-twice", f"{twice} stands in a list twice", site=twice)
    if list(names) != sorted(names):
        raise refusal("malformed", "a list of sites is not in the order of their names")


def signed_advert(advert: KeyAdvert, identity: PrivateKey) -> KeyAdvert:
    """The advert with its site's signature."""
    return replace(advert, signature=sign(identity, advert.signed_content(), purpose=_ADVERT))


def check_advert(advert: KeyAdvert, terms: Terms) -> None:
    """Whether an advert is of this session, by the site of the roster that it names, and holds sound keys.

    Raises:
        SecureSumError: ``session-differs``, ``site-unknown``, ``signature-invalid`` or ``key-weak``.
    """
    site = advert.site
    if site not in terms.roster:
        raise refusal("site-unknown", f"{site} is not among the sites of the study", site=site)
    check_session(advert.session, terms, site=site)
    if not fits(terms.roster[site], advert.signature, advert.signed_content(), purpose=_ADVERT):
        raise refusal("signature-invalid", f"the keys of {site} are not signed by {site}", site=site)
    for public in (advert.channel_public, advert.mask_public):
        check_public(public, site=site)


def check_distinct(adverts: Sequence[KeyAdvert]) -> None:
    """Whether no public key and no check of a seed is there twice.

    Raises:
        SecureSumError: ``key-twice``.
    """
    seen: set[bytes] = set()
    for advert in adverts:
        for value in (advert.channel_public, advert.mask_public, advert.seed_check):
            if value in seen:
                raise refusal(
                    "key-twice", f"{advert.site} sent a key that is there already", site=advert.site
                )
            seen.add(value)


def check_participants(participants: Participants, terms: Terms) -> None:
    """Everything that can be said of a list of adverts without knowing who reads it.

    Raises:
        SecureSumError: names what is wrong, and with whom.
    """
    check_session(participants.session, terms)
    if participants.threshold != terms.threshold:
        raise refusal(
            "threshold-differs",
            f"the server asks for a threshold of {participants.threshold}; the study's is {terms.threshold}",
        )
    terms.check_number(len(participants.adverts))
    check_names(participants.names)
    for advert in participants.adverts:
        check_advert(advert, terms)
    check_distinct(participants.adverts)


def list_digest(participants: Participants) -> bytes:
    """32 bytes that stand for the session, the threshold and every advert of a list."""
    return hashlib.sha256(framed("cardionets secure sum 1", "list", participants.to_bytes())).digest()


def survivors_content(
    session: bytes, *, participants: bytes, dealers: Sequence[str], survivors: Sequence[str]
) -> bytes:
    """What a confirmation signs: not the list of survivors alone, but all that led to it.

    The participants and the dealers stand in it so that sites which were shown different lists before cannot
    take each other's signatures for agreement.

    Args:
        session: digest of the session's name.
        participants: digest of the list of adverts.
        dealers: whose shares came, in order; they mask each other.
        survivors: whose vectors came, in order.
    """
    return framed(session, participants, framed(*dealers), framed(*survivors))


def confirmed(content: bytes, *, session: bytes, site: str, identity: PrivateKey) -> Confirmation:
    """A site's signature over a list of survivors."""
    return Confirmation(session=session, site=site, signature=sign(identity, content, purpose=_SURVIVORS))


def check_confirmation(
    confirmation: Confirmation, content: bytes, terms: Terms, *, survivors: Sequence[str]
) -> None:
    """Whether a confirmation is by a survivor, over exactly this content.

    Signatures of others count for nothing: that each signer is itself on the list is what the bound on
    colluding sites in the package's text rests on.

    Raises:
        SecureSumError: ``session-differs``, ``site-unknown`` or ``signature-invalid``.
    """
    site = confirmation.site
    if site not in survivors or site not in terms.roster:
        raise refusal("site-unknown", f"{site} signed a list of survivors on which it is not", site=site)
    check_session(confirmation.session, terms, site=site)
    if not fits(terms.roster[site], confirmation.signature, content, purpose=_SURVIVORS):
        raise refusal(
            "signature-invalid", f"{site} did not sign this list of survivors, or was shown others", site=site
        )
