"""The messages of a secure sum, in the order in which they travel (row 10 of the walk).

    site -> server   KeyAdvert         two public keys, signed
    server -> site   Participants      everybody's adverts
    site -> server   ShareBundle       an Envelope to every other site
    server -> site   ShareDelivery     the envelopes to one site
    site -> server   (an array)        the masked vector
    server -> site   Survivors         whose vectors came
    site -> server   Confirmation      a signature over exactly that list
    server -> site   UnmaskRequest     the list, and at least t signatures
    site -> server   UnmaskReply       of every site one share, of one kind

Comes in and goes out: frozen dataclasses, each with one spelling in bytes. Only their form is checked here;
whether a message is true, ``site`` and ``coordinator`` judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cardionets_core.privacy.secure_sum.agreement import NONCE_BYTES, TAG_BYTES
from cardionets_core.privacy.secure_sum.encoding import (
    MAX_SITES,
    Form,
    Hex,
    Message,
    Name,
    One,
    Several,
    Whole,
)
from cardionets_core.privacy.secure_sum.masks import framed
from cardionets_core.privacy.secure_sum.shares import SECRET_BYTES, Kind

DIGEST = Hex(32, 32)
SECRET = Hex(SECRET_BYTES, SECRET_BYTES)
SEALED = Hex(NONCE_BYTES + 2 * SECRET_BYTES + TAG_BYTES, NONCE_BYTES + 2 * SECRET_BYTES + TAG_BYTES)
SIGNATURE = Hex(8, 120)
"""DER of two numbers of 384 bits."""
SITE = Name()
SITES = Several(SITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdvert(Message):
    """A site's keys for one session.

    Attributes:
        session: digest of the session's name; in every message.
        site: who speaks.
        channel_public: X25519, for envelopes.
        mask_public: X25519, for the masks with others; its private part is shared out.
        seed_check: digest of the seed of its own mask, which is shared out as well.
        signature: over all the others, with the key that the study lists for the site.
    """

    KIND: ClassVar[str] = "key-advert"
    FORMS: ClassVar[dict[str, Form]] = {
        "session": DIGEST,
        "site": SITE,
        "channel_public": DIGEST,
        "mask_public": DIGEST,
        "seed_check": DIGEST,
        "signature": SIGNATURE,
    }
    session: bytes
    site: str
    channel_public: bytes
    mask_public: bytes
    seed_check: bytes
    signature: bytes = b""

    def signed_content(self) -> bytes:
        """What the signature is over."""
        return framed(self.session, self.site, self.channel_public, self.mask_public, self.seed_check)


@dataclass(frozen=True, slots=True, kw_only=True)
class Participants(Message):
    """Who takes part.

    Attributes:
        session: as ever.
        threshold: must be the study's.
        adverts: of all who take part, in the order of their names.
    """

    KIND: ClassVar[str] = "participants"
    FORMS: ClassVar[dict[str, Form]] = {
        "session": DIGEST,
        "threshold": Whole(0, MAX_SITES),
        "adverts": Several(One(KeyAdvert)),
    }
    session: bytes
    threshold: int
    adverts: tuple[KeyAdvert, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites, in order; the first holds the shares of number 1."""
        return tuple(advert.site for advert in self.adverts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope(Message):
    """One dealer's shares for one holder; only the holder can open it.

    Attributes:
        session: as ever.
        participants: digest of the list that the dealer was shown.
        dealer: whose secrets are shared.
        holder: who shall keep the shares.
        seed_share_check: digest of the share of the seed.
        key_share_check: digest of the share of the private mask key.
        sealed: both shares, encrypted; all of the above is bound to it.
    """

    KIND: ClassVar[str] = "envelope"
    FORMS: ClassVar[dict[str, Form]] = {
        "session": DIGEST,
        "participants": DIGEST,
        "dealer": SITE,
        "holder": SITE,
        "seed_share_check": DIGEST,
        "key_share_check": DIGEST,
        "sealed": SEALED,
    }
    session: bytes
    participants: bytes
    dealer: str
    holder: str
    seed_share_check: bytes
    key_share_check: bytes
    sealed: bytes

    def label(self) -> bytes:
        """What the ciphertext is bound to."""
        checks = (self.seed_share_check, self.key_share_check)
        return framed(self.session, self.participants, self.dealer, self.holder, *checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBundle(Message):
    """All shares that one site deals.

    Attributes:
        session: as ever.
        participants: digest of the list that the site was shown.
        site: who speaks.
        seed_share_check: digest of the share of its seed that it keeps for itself.
        key_share_check: the same of its private mask key.
        envelopes: one for every other participant, in the order of their names.
    """

    KIND: ClassVar[str] = "share-bundle"
    FORMS: ClassVar[dict[str, Form]] = {
        "session": DIGEST,
        "participants": DIGEST,
        "site": SITE,
        "seed_share_check": DIGEST,
        "key_share_check": DIGEST,
        "envelopes": Several(One(Envelope)),
    }
    session: bytes
    participants: bytes
    site: str
    seed_share_check: bytes
    key_share_check: bytes
    envelopes: tuple[Envelope, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDelivery(Message):
    """What others dealt to one site; the dealers and the site itself are those who may be masked together.

    Attributes:
        session: as ever.
        holder: to whom.
        envelopes: in the order of the dealers' names.
    """

    KIND: ClassVar[str] = "share-delivery"
    FORMS: ClassVar[dict[str, Form]] = {
        "session": DIGEST,
        "holder": SITE,
        "envelopes": Several(One(Envelope)),
    }
    session: bytes
    holder: str
    envelopes: tuple[Envelope, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors(Message):
    """Whose masked vectors came, in the order of their names."""

    KIND: ClassVar[str] = "survivors"
    FORMS: ClassVar[dict[str, Form]] = {"session": DIGEST, "sites": SITES}
    session: bytes
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation(Message):
    """A site's signature over the one list of survivors that it accepts in this session."""

    KIND: ClassVar[str] = "confirmation"
    FORMS: ClassVar[dict[str, Form]] = {"session": DIGEST, "site": SITE, "signature": SIGNATURE}
    session: bytes
    site: str
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskRequest(Message):
    """The list of survivors, and who signed it."""

    KIND: ClassVar[str] = "unmask-request"
    FORMS: ClassVar[dict[str, Form]] = {
        "session": DIGEST,
        "sites": SITES,
        "confirmations": Several(One(Confirmation)),
    }
    session: bytes
    sites: tuple[str, ...]
    confirmations: tuple[Confirmation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedShare(Message):
    """The share of one peer's secret: of its seed if it survived, else of its mask key; never both."""

    KIND: ClassVar[str] = "opened-share"
    FORMS: ClassVar[dict[str, Form]] = {"dealer": SITE, "kind": Name(("seed", "key")), "share": SECRET}
    dealer: str
    kind: Kind
    share: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskReply(Message):
    """Of every site that dealt, one share, in the order of their names."""

    KIND: ClassVar[str] = "unmask-reply"
    FORMS: ClassVar[dict[str, Form]] = {"session": DIGEST, "site": SITE, "shares": Several(One(OpenedShare))}
    session: bytes
    site: str
    shares: tuple[OpenedShare, ...]
