"""Secure sums: the server learns the sum of the sites' vectors, and of no vector by itself (rows 8 to 12).

Comes in: one vector of whole numbers a site, the sites' public keys and a threshold t, both from the study
that each hospital approved. Goes out: the sum of those who did not drop out, exactly. The protocol is that of
Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS 2017), in the
form that withstands a server that lies: signed keys and a round of confirmations. No Flower, no files and no
YAML here; ``client`` and ``server`` carry the messages.

How it hides. A vector leaves its site with one mask for each other site, which that site takes off its own
vector again, and with one mask of its own. Keys of the first kind and seeds of the second are shared out
among all, any t shares giving them back. In the end the sites tell, of whoever survived, shares of the seed,
and of whoever dropped out, shares of the key; never both, and for one list of survivors alone. So what is
opened is the sum over that list.

Terms: n sites take part in a session (those whose adverts a site was shown), c of them collude with the
server and hand it their whole states. t <= n < 2 t is enforced, by every site for itself.

What an honest-but-curious server learns
    Who takes part and who drops out at which step; the sum over the survivors, at least t of them. With c
    colluding sites it can take their vectors off, and knows the sum over the honest survivors, at least t -
    c. This holds for c <= t - 1: so many shares tell nothing of a secret (Shamir), and as many as t open all.

What a server that lies learns
    The same, if c <= 2 t - n - 1. To open more it would need both secrets of one honest site, or sums over
    two lists. A site tells shares only for the one list that it signed, and only after t sites that stand on
    the list have signed it. Two different lists need 2 t signatures; the c colluders can sign both, each of
    the n - c honest sites one. That is 2 t <= n + c, which the bound excludes. Who was shown which adverts is
    in the label of every envelope, so all who can open a site's envelopes saw the same n sites as it did; who
    dealt shares is in what is signed, so the signers have masked towards each other. An honest survivor who
    did not sign and was shown other dealers still shares a mask with an honest signer, since two groups of t
    overlap in more than c sites: partial sums do not fall apart either.
    With t just above n / 2 the bound is c = 0: then a lying server must have no site on its side, while for
    c = n / 3 the threshold must be above 2 n / 3. A server picks who takes part, so a study that wants the
    bound for every choice takes n as the length of its roster.
    It can make a session fail, at any step, and nobody learns more from that; and it can falsify the sum.

What several sessions together give away
    Each session stands alone: its keys are new. But two sums over nearly the same sites of the same values
    differ by the value of the site that is in one alone. So a site that has confirmed in one attempt should
    not enter another one with the same values, unless it accepts this; ``SecureSite.step`` tells. Sums of the
    same round under different purposes have survivors of their own.

What is not given
    - No defence against a site's wrong input: a masked vector cannot be looked into, so bounds on norms and
      strategies that compare sites do not work under it. A site can shift the sum at will, or spoil it.
    - No defence against a roster of sites that do not exist: whoever writes the study may list t - 1 of its
      own. The hospital approves the roster; the bounds above begin there.
    - The sum itself is not private: with few sites, or values that others know, it tells much. Noise is the
      remedy, and is another part.
    - A site that forgets (an older copy of its state put back) can be made to mask or sign twice. States are
      written before an answer leaves, and live as long as their session.
    - Memory of a process is not wiped. Secrets are dropped from the state: the channel's key when the
      envelopes are open, the own seed and mask key with the confirmation, the others' shares with the reply.
    - A dealer of bad shares or a teller of wrong ones is named; who sends a falsely masked vector is not.
"""

from __future__ import annotations

from cardionets_core.privacy.secure_sum.coordinator import Coordinator
from cardionets_core.privacy.secure_sum.fixed_point import FixedPoint
from cardionets_core.privacy.secure_sum.messages import (
    Confirmation,
    Envelope,
    KeyAdvert,
    OpenedShare,
    Participants,
    ShareBundle,
    ShareDelivery,
    Survivors,
    UnmaskReply,
    UnmaskRequest,
)
from cardionets_core.privacy.secure_sum.site import SecureSite
from cardionets_core.privacy.secure_sum.terms import SessionName, Terms

__all__ = [
    "Confirmation",
    "Coordinator",
    "Envelope",
    "FixedPoint",
    "KeyAdvert",
    "OpenedShare",
    "Participants",
    "SecureSite",
    "SessionName",
    "ShareBundle",
    "ShareDelivery",
    "Survivors",
    "Terms",
    "UnmaskReply",
    "UnmaskRequest",
]
