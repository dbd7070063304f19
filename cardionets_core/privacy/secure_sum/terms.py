"""What a site knows before a session begins, and from nobody in it: its name, the sites, the threshold.

Comes in: from the study that the hospital approved. Goes out: the terms against which every message is held.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cardionets_core.privacy.secure_sum.encoding import MAX_SITES, NAME
from cardionets_core.privacy.secure_sum.masks import framed
from cardionets_core.privacy.secure_sum.refusals import refusal
from cardionets_core.trust.keys import PublicKey

LEAST_THRESHOLD = 2
"""A sum over one site is that site's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionName:
    """Names one secure sum once and for all.

    Attributes:
        study_digest: SHA-256 of the study, 64 hexadecimal digits.
        phase: index in the study's list of phases, from 0.
        round: from 0.
        attempt: from 1; another attempt is another session.
        purpose: what is summed, in the spelling of a name; a round may hold several sums.

    Raises:
        SecureSumError: ``malformed``.
    """

    study_digest: str
    phase: int
    round: int
    attempt: int
    purpose: str

    def __post_init__(self) -> None:
        if re.fullmatch(r"[0-9a-f]{64}", self.study_digest) is None or NAME.fullmatch(self.purpose) is None:
            raise refusal("malformed", "a session has a study or purpose that is none")
        for number, least in ((self.phase, 0), (self.round, 0), (self.attempt, 1)):
            if type(number) is not int or not least <= number < 1 << 31:
                raise refusal("malformed", f"a session has a phase, round or attempt of {number}")

    def digest(self) -> bytes:
        """32 bytes that stand for the name in every message, key and signature."""
        numbers = (str(number) for number in (self.phase, self.round, self.attempt))
        parts = ("cardionets secure sum 1", "session", self.study_digest, *numbers, self.purpose)
        return hashlib.sha256(framed(*parts)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a session must keep to.

    Attributes:
        session: its name.
        threshold: the fewest sites whose sum may be opened, and the shares that open a secret. Of n sites
            that take part it must be more than n / 2; more sites than that are refused. So a roster of R
            sites can take part as a whole where the threshold is above R / 2, which studies should ask for.
        roster: the sites that may take part, each with the key (EC P-384) that the study lists for it.

    Raises:
        SecureSumError: ``threshold-too-low``, ``too-few-sites`` or ``malformed``.
    """

    session: SessionName
    threshold: int
    roster: Mapping[str, PublicKey] = field(repr=False)

    def __post_init__(self) -> None:
        if type(self.threshold) is not int or self.threshold < LEAST_THRESHOLD:
            raise refusal("threshold-too-low", f"a threshold of {self.threshold} is below {LEAST_THRESHOLD}")
        if not self.threshold <= len(self.roster) <= MAX_SITES:
            raise refusal(
                "too-few-sites",
                f"a threshold of {self.threshold} does not fit a roster of {len(self.roster)} sites; "
                f"at most {MAX_SITES} are possible",
            )
        if any(NAME.fullmatch(site) is None for site in self.roster):
            raise refusal("malformed", "the roster holds a name that no site can have")

    def check_number(self, sites: int) -> None:
        """Whether so many sites may take part.

        With 2 t > n, two groups of t sites share one, and an honest site signs one list alone: this is what
        keeps a server from opening two different sums.

        Raises:
            SecureSumError: ``too-few-sites`` or ``threshold-too-low``.
        """
        if sites < self.threshold:
            raise refusal("too-few-sites", f"{sites} sites take part where {self.threshold} are needed")
        if 2 * self.threshold <= sites:
            raise refusal(
                "threshold-too-low",
                f"{sites} sites take part, and a threshold of {self.threshold} is not more than half of them",
            )
