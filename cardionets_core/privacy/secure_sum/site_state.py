"""What a site remembers of one session between two messages, each of which may meet a fresh process.

Comes in and goes out: bytes, which the caller keeps where nobody else reads. They hold secrets until the
session's end; ``repr`` shows none. Deciding is ``site``'s part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from cardionets_core.privacy.secure_sum.encoding import (
    MAX_SITES,
    Form,
    Hex,
    Malformed,
    Message,
    Name,
    One,
    Several,
    Whole,
)
from cardionets_core.privacy.secure_sum.messages import (
    DIGEST,
    SECRET,
    SITE,
    SITES,
    Confirmation,
    KeyAdvert,
    Participants,
    ShareBundle,
    UnmaskReply,
)

Step = Literal["advertised", "shared", "masked", "confirmed", "unmasked"]
STEPS: tuple[Step, ...] = get_args(Step)
_MAYBE_DIGEST = Hex(0, 32)
_MAYBE_SECRET = Hex(0, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldShares(Message):
    """Shares that a site keeps for a dealer."""

    KIND: ClassVar[str] = "held-shares"
    FORMS: ClassVar[dict[str, Form]] = {"dealer": SITE, "seed_share": SECRET, "key_share": SECRET}
    dealer: str
    seed_share: bytes = field(repr=False)
    key_share: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState(Message):
    """All that a site knows of a session.

    Attributes:
        session: digest of the session's name.
        site: whose state it is.
        threshold: with which it began.
        step: the last one that was made.
        advert: the site's own.
        channel_private: the envelopes' key; empty once they are open.
        mask_private: the key of the masks with others; empty once the list of survivors is signed.
        seed: of the own mask; likewise.
        participants: the list that was accepted.
        bundle: the shares that were dealt, sealed.
        held: the own shares, and those of others once they came; empty once they were told.
        delivery: digest of the delivery that was accepted.
        vector: digest of the vector that was masked; forgotten with the seed.
        survivors: the list that was signed.
        confirmation: the signature.
        reply: the shares that were told.
    """

    KIND: ClassVar[str] = "site-state"
    FORMS: ClassVar[dict[str, Form]] = {
        "session": DIGEST,
        "site": SITE,
        "threshold": Whole(0, MAX_SITES),
        "step": Name(STEPS),
        "advert": One(KeyAdvert),
        "channel_private": _MAYBE_SECRET,
        "mask_private": _MAYBE_SECRET,
        "seed": _MAYBE_SECRET,
        "participants": One(Participants, optional=True),
        "bundle": One(ShareBundle, optional=True),
        "held": Several(One(HeldShares)),
        "delivery": _MAYBE_DIGEST,
        "vector": _MAYBE_DIGEST,
        "survivors": SITES,
        "confirmation": One(Confirmation, optional=True),
        "reply": One(UnmaskReply, optional=True),
    }
    session: bytes
    site: str
    threshold: int
    step: Step
    advert: KeyAdvert
    channel_private: bytes = field(repr=False)
    mask_private: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    participants: Participants | None = None
    bundle: ShareBundle | None = None
    held: tuple[HeldShares, ...] = ()
    delivery: bytes = b""
    vector: bytes = field(default=b"", repr=False)
    survivors: tuple[str, ...] = ()
    confirmation: Confirmation | None = None
    reply: UnmaskReply | None = None

    def __post_init__(self) -> None:
        past = STEPS.index(self.step)
        there = (
            (1, self.participants is not None and self.bundle is not None),
            (2, len(self.delivery) == 32),
            (3, self.confirmation is not None and bool(self.survivors)),
            (4, self.reply is not None),
        )
        secrets = (
            (bool(self.channel_private), past < 2),
            (bool(self.mask_private), past < 3),
            (bool(self.seed), past < 3),
            (bool(self.vector), past == 2),
            (bool(self.held), past in (1, 2, 3)),
        )
        # A torn or doctored state is none; what is missing is not said, for it may be a secret.
        if any(found != (past >= step) for step, found in there) or any(a != b for a, b in secrets):
            raise Malformed

    @property
    def dealers(self) -> tuple[str, ...]:
        """Whose shares are held, in order; once a delivery was accepted, those who mask each other."""
        shares = self.held if self.reply is None else self.reply.shares
        return tuple(entry.dealer for entry in shares)
