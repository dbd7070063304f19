"""A site's two secrets are made and go out in shares, and those of others come in (row 10 of the walk).

Comes in: a site's state and the others' adverts or envelopes. Goes out: sealed envelopes, or the shares that
they held, each checked against the digest that its dealer published. The order of the steps is ``site``'s
part.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace

from cardionets_core.privacy.secure_sum.agreement import agreed, make_private, opened, public_of, seal
from cardionets_core.privacy.secure_sum.messages import (
    Envelope,
    KeyAdvert,
    Participants,
    ShareBundle,
    ShareDelivery,
)
from cardionets_core.privacy.secure_sum.refusals import refusal
from cardionets_core.privacy.secure_sum.shares import SECRET_BYTES, seed_digest, share_digest, split
from cardionets_core.privacy.secure_sum.site_state import HeldShares, SiteState
from cardionets_core.privacy.secure_sum.terms import Terms
from cardionets_core.privacy.secure_sum.vouching import list_digest, signed_advert
from cardionets_core.trust.keys import PrivateKey, public_der


def begun(terms: Terms, *, site: str, identity: PrivateKey) -> SiteState:
    """The state of a site that has made its keys and signed them.

    Args:
        terms: from the study.
        site: this one's name.
        identity: its key, whose public part the roster holds.

    Raises:
        SecureSumError: ``own-entry-missing``: the roster does not list this site with this key.
    """
    listed = terms.roster.get(site)
    if listed is None or public_der(listed) != public_der(identity.public_key()):
        raise refusal("own-entry-missing", f"the study does not list {site} with the key that it has")
    session = terms.session.digest()
    channel, mask, seed = make_private(), make_private(), secrets.token_bytes(SECRET_BYTES)
    advert = KeyAdvert(
        session=session,
        site=site,
        channel_public=public_of(channel),
        mask_public=public_of(mask),
        seed_check=seed_digest(seed, session=session, site=site),
    )
    return SiteState(
        session=session,
        site=site,
        threshold=terms.threshold,
        step="advertised",
        advert=signed_advert(advert, identity),
        channel_private=channel,
        mask_private=mask,
        seed=seed,
    )


def deal(state: SiteState, participants: Participants) -> tuple[ShareBundle, HeldShares]:
    """Split both secrets of a site among all who take part.

    Args:
        state: of the site, just advertised.
        participants: checked.

    Returns:
        What is sent, and the shares that the site keeps of its own secrets.
    """
    names, own, listed = participants.names, state.site, list_digest(participants)
    seed_shares = split(state.seed, threshold=state.threshold, holders=len(names))
    key_shares = split(state.mask_private, threshold=state.threshold, holders=len(names))
    kept = HeldShares(dealer=own, seed_share=b"", key_share=b"")
    kept_checks, envelopes = (b"", b""), []
    for number, advert in enumerate(participants.adverts, start=1):
        held = HeldShares(dealer=own, seed_share=seed_shares[number], key_share=key_shares[number])
        checks = _checks(held, session=state.session, holder=advert.site)
        if advert.site == own:
            kept, kept_checks = held, checks
        else:
            envelopes.append(_envelope(state, advert, held, checks, listed))
    bundle = ShareBundle(
        session=state.session,
        participants=listed,
        site=own,
        seed_share_check=kept_checks[0],
        key_share_check=kept_checks[1],
        envelopes=tuple(envelopes),
    )
    return bundle, kept


def _checks(held: HeldShares, *, session: bytes, holder: str) -> tuple[bytes, bytes]:
    dealer = held.dealer
    return (
        share_digest(held.seed_share, session=session, dealer=dealer, holder=holder, kind="seed"),
        share_digest(held.key_share, session=session, dealer=dealer, holder=holder, kind="key"),
    )


def _envelope(
    state: SiteState, advert: KeyAdvert, held: HeldShares, checks: tuple[bytes, bytes], listed: bytes
) -> Envelope:
    empty = Envelope(
        session=state.session,
        participants=listed,
        dealer=state.site,
        holder=advert.site,
        seed_share_check=checks[0],
        key_share_check=checks[1],
        sealed=b"",
    )
    sealed = seal(
        held.seed_share + held.key_share,
        secret=agreed(state.channel_private, advert.channel_public, site=advert.site),
        session=state.session,
        sender=state.site,
        receiver=advert.site,
        label=empty.label(),
    )
    return replace(empty, sealed=sealed)


def accept(state: SiteState, participants: Participants, delivery: ShareDelivery) -> tuple[HeldShares, ...]:
    """Open every envelope of a delivery.

    Args:
        state: of the site, which has dealt.
        participants: as the site accepted them.
        delivery: of this session and to this site; its dealers are participants, in order.

    Returns:
        The shares of all dealers, the site's own among them, in the order of their names.

    Raises:
        SecureSumError: ``participants-differ`` or ``envelope-invalid``, with the dealer's name.
    """
    adverts = {advert.site: advert for advert in participants.adverts}
    listed = list_digest(participants)
    found = [*state.held]
    for envelope in delivery.envelopes:
        if envelope.participants != listed:
            raise refusal(
                "participants-differ",
                f"{envelope.dealer} was shown another list of participants than this site",
                site=envelope.dealer,
            )
        found.append(_open(state, adverts[envelope.dealer], envelope))
    return tuple(sorted(found, key=lambda held: held.dealer))


def _open(state: SiteState, advert: KeyAdvert, envelope: Envelope) -> HeldShares:
    dealer, own = envelope.dealer, state.site
    content = None
    if envelope.holder == own and envelope.session == state.session:
        content = opened(
            envelope.sealed,
            secret=agreed(state.channel_private, advert.channel_public, site=dealer),
            session=state.session,
            sender=dealer,
            receiver=own,
            label=envelope.label(),
        )
    if content is None or len(content) != 2 * SECRET_BYTES:
        raise refusal("envelope-invalid", f"the envelope of {dealer} to {own} cannot be opened", site=dealer)
    held = HeldShares(dealer=dealer, seed_share=content[:SECRET_BYTES], key_share=content[SECRET_BYTES:])
    if _checks(held, session=state.session, holder=own) != (
        envelope.seed_share_check,
        envelope.key_share_check,
    ):
        raise refusal(
            "envelope-invalid", f"the shares of {dealer} are not those that it published", site=dealer
        )
    return held


def delivery_digest(delivery: ShareDelivery) -> bytes:
    """32 bytes that stand for a delivery."""
    return hashlib.sha256(delivery.to_bytes()).digest()
