"""A site's side of a secure sum: ``advertise -> share -> mask -> confirm -> unmask`` (rows 8 to 10).

Comes in: the terms that the hospital approved, the site's own key, the server's messages and one vector. Goes
out: the site's messages and the masked vector, or a refusal. The server is trusted with nothing: each step
checks all that it is shown against the terms and against what the site has accepted before. A step that was
made can be asked for again: the same question gets the same answer, another one is refused for ever. A
refused step changes nothing.

The caller keeps ``to_bytes()`` on the disk before it lets the answer of a step leave, and never goes back to
an earlier state: a site that forgot what it has masked or signed could be made to do it twice. It reads no
file, sends nothing, and knows not what the vector means.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from cardionets_core.privacy.secure_sum import dealing, vouching
from cardionets_core.privacy.secure_sum.agreement import agreed, pair_mask, self_mask
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.privacy.secure_sum.masks import apply_masks, check_vector, framed
from cardionets_core.privacy.secure_sum.messages import (
    Confirmation,
    KeyAdvert,
    OpenedShare,
    Participants,
    ShareBundle,
    ShareDelivery,
    Survivors,
    UnmaskReply,
    UnmaskRequest,
)
from cardionets_core.privacy.secure_sum.refusals import refusal
from cardionets_core.privacy.secure_sum.site_state import STEPS, SiteState, Step
from cardionets_core.privacy.secure_sum.terms import Terms
from cardionets_core.trust.keys import PrivateKey


class SecureSite:
    """One site in one session; made by ``begin``, or by ``resume`` from what an earlier process kept."""

    def __init__(self, terms: Terms, state: SiteState) -> None:
        self._terms = terms
        self._state = state

    def __repr__(self) -> str:
        return f"SecureSite({self._state.site!r}, step={self._state.step!r})"

    @classmethod
    def begin(cls, terms: Terms, *, site: str, identity: PrivateKey) -> SecureSite:
        """Make the keys of a session and sign them.

        Args:
            terms: from the study.
            site: this one's name.
            identity: its key, whose public part the roster holds; it is not kept.

        Raises:
            SecureSumError: ``own-entry-missing``: the roster does not list this site with this key.
        """
        return cls(terms, dealing.begun(terms, site=site, identity=identity))

    @classmethod
    def resume(cls, content: bytes, terms: Terms, *, site: str) -> SecureSite:
        """Go on from what ``to_bytes`` gave.

        Raises:
            SecureSumError: ``malformed``, or ``state-invalid``: it is of another site, session or threshold.
        """
        state = SiteState.from_bytes(content)
        if (state.session, state.site, state.threshold) != (terms.session.digest(), site, terms.threshold):
            raise refusal("state-invalid", "what was kept is of another session, site or threshold")
        return cls(terms, state)

    def to_bytes(self) -> bytes:
        """The whole state, secrets among it; for the site's own disk."""
        return self._state.to_bytes()

    @property
    def step(self) -> Step:
        """The last step that was made. From ``confirmed`` on, the sum may become known.

        Whoever takes part in another attempt with the same values and other sites after that step gives away
        the difference of two sums; callers ask for this.
        """
        return self._state.step

    def advertise(self) -> KeyAdvert:
        """The site's keys."""
        return self._state.advert

    def share(self, participants: Participants) -> ShareBundle:
        """Deal shares of both secrets to those who take part.

        Raises:
            SecureSumError: the list is not one that the terms allow, or lacks the site's own advert;
                ``already-answered``: another list was accepted before.
        """
        state = self._state
        if state.participants is not None and state.bundle is not None:
            if participants != state.participants:
                raise refusal("already-answered", "shares were dealt for another list of participants")
            return state.bundle
        vouching.check_participants(participants, self._terms)
        if state.advert not in participants.adverts:
            raise refusal("own-entry-missing", "the list of participants lacks the keys that this site made")
        bundle, kept = dealing.deal(state, participants)
        self._state = replace(state, step="shared", participants=participants, bundle=bundle, held=(kept,))
        return bundle

    def mask(self, delivery: ShareDelivery, vector: Ring) -> Ring:
        """Take the others' shares in, and mask the vector.

        Args:
            delivery: the envelopes to this site.
            vector: ``uint32`` or ``uint64`` [N]; it is left as it is.

        Returns:
            The masked vector, which leaves the site.

        Raises:
            SecureSumError: ``out-of-order``; the delivery is of another session, of too few or of unknown
                sites or cannot be opened; ``already-answered``: another one was accepted before;
                ``vector-differs``: another vector was masked before.
        """
        state = self._state
        participants = self._after("shared", until="masked")
        check_vector(vector)
        vector = np.ascontiguousarray(vector)
        what = hashlib.sha256(framed(vector.dtype.name, str(vector.size)))
        what.update(vector.data)
        digest = what.digest()
        if state.step == "masked":
            if dealing.delivery_digest(delivery) != state.delivery:
                raise refusal("already-answered", "another delivery of shares was accepted before")
            if digest != state.vector:
                raise refusal("vector-differs", "another vector was masked in this session")
            return self._masked(participants, state.dealers, vector)
        self._check_delivery(delivery, participants)
        held = dealing.accept(state, participants, delivery)
        masked = self._masked(participants, [entry.dealer for entry in held], vector)
        self._state = replace(
            state,
            step="masked",
            held=held,
            delivery=dealing.delivery_digest(delivery),
            vector=digest,
            channel_private=b"",
        )
        return masked

    def confirm(self, survivors: Survivors, *, identity: PrivateKey) -> Confirmation:
        """Sign whose vectors the server says it has; once in a session.

        Raises:
            SecureSumError: ``out-of-order``; ``too-few-sites``; ``site-unknown``: a survivor dealt no shares;
                ``own-entry-missing``: this site is not among them; ``survivors-differ``: another list was
                signed before.
        """
        state = self._state
        participants = self._after("masked", until="unmasked")
        vouching.check_session(survivors.session, self._terms)
        if state.confirmation is not None:
            self._check_same(survivors.sites)
            return state.confirmation
        vouching.check_names(survivors.sites)
        strangers = sorted(set(survivors.sites) - set(state.dealers))
        if strangers:
            raise refusal("site-unknown", f"{strangers[0]} is said to have masked, but dealt no shares")
        if state.site not in survivors.sites:
            raise refusal("own-entry-missing", "this site has masked, but is not among the survivors")
        self._check_enough(len(survivors.sites), "survivors")
        confirmation = vouching.confirmed(
            self._content(participants, survivors.sites),
            session=state.session,
            site=state.site,
            identity=identity,
        )
        # Nothing masks any more after this, so nothing is left that could unmask this site's own vector
        # but the shares that others hold.
        self._state = replace(
            state,
            step="confirmed",
            survivors=survivors.sites,
            confirmation=confirmation,
            mask_private=b"",
            seed=b"",
            vector=b"",
        )
        return confirmation

    def unmask(self, request: UnmaskRequest) -> UnmaskReply:
        """Tell one share of each dealer: of the seed of a survivor, of the mask key of one that dropped out.

        Raises:
            SecureSumError: ``out-of-order``; ``survivors-differ``: not the list that this site signed;
                ``too-few-sites``: fewer than the threshold signed it; a signature is not what it says.
        """
        state = self._state
        participants = self._after("confirmed", until="unmasked")
        vouching.check_session(request.session, self._terms)
        self._check_same(request.sites)
        vouching.check_names([entry.site for entry in request.confirmations])
        self._check_enough(len(request.confirmations), "signatures")
        content = self._content(participants, request.sites)
        for entry in request.confirmations:
            vouching.check_confirmation(entry, content, self._terms, survivors=request.sites)
        if state.reply is not None:
            return state.reply
        shares = tuple(
            OpenedShare(dealer=entry.dealer, kind="seed", share=entry.seed_share)
            if entry.dealer in request.sites
            else OpenedShare(dealer=entry.dealer, kind="key", share=entry.key_share)
            for entry in state.held
        )
        reply = UnmaskReply(session=state.session, site=state.site, shares=shares)
        self._state = replace(state, step="unmasked", held=(), reply=reply)
        return reply

    def _after(self, step: Step, *, until: Step) -> Participants:
        made = STEPS.index(self._state.step)
        participants = self._state.participants
        if participants is None or not STEPS.index(step) <= made <= STEPS.index(until):
            raise refusal("out-of-order", f"this step does not follow the step {self._state.step!r}")
        return participants

    def _check_delivery(self, delivery: ShareDelivery, participants: Participants) -> None:
        vouching.check_session(delivery.session, self._terms)
        own = self._state.site
        if delivery.holder != own:
            raise refusal("envelope-invalid", f"a delivery to {delivery.holder} came to {own}")
        dealers = [envelope.dealer for envelope in delivery.envelopes]
        vouching.check_names(dealers)
        strangers = sorted(set(dealers) - set(participants.names) | {own}.intersection(dealers))
        if strangers:
            raise refusal("site-unknown", f"an envelope of {strangers[0]} came, which has none to send")
        self._check_enough(len(dealers) + 1, "dealers")

    def _check_enough(self, found: int, of: str) -> None:
        if found < self._terms.threshold:
            raise refusal("too-few-sites", f"{found} {of} where {self._terms.threshold} are needed")

    def _check_same(self, sites: tuple[str, ...]) -> None:
        if sites != self._state.survivors:
            raise refusal("survivors-differ", "the list of survivors is not the one that this site signed")

    def _content(self, participants: Participants, survivors: tuple[str, ...]) -> bytes:
        return vouching.survivors_content(
            self._state.session,
            participants=vouching.list_digest(participants),
            dealers=self._state.dealers,
            survivors=survivors,
        )

    def _masked(self, participants: Participants, dealers: tuple[str, ...] | list[str], vector: Ring) -> Ring:
        state = self._state
        masks = [self_mask(state.seed, session=state.session, own=state.site)]
        for advert in participants.adverts:
            if advert.site != state.site and advert.site in dealers:
                secret = agreed(state.mask_private, advert.mask_public, site=advert.site)
                masks.append(pair_mask(secret, session=state.session, own=state.site, other=advert.site))
        masked = vector.copy()
        apply_masks(masked, masks)
        return masked
