"""The server opens a sum: it puts secrets together again, and takes off the masks that are still on.

Comes in: checked replies, and the masked vectors one after the other. Goes out: the sum modulo 2^32 or 2^64.
Beside the sum there is one vector at a time, whatever the number of sites. Who may be opened in which way the
sites have decided by what they told; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from cardionets_core.privacy.secure_sum.agreement import agreed, pair_mask, public_of, self_mask
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.privacy.secure_sum.masks import TILE_BYTES, Mask, apply_masks, check_vector
from cardionets_core.privacy.secure_sum.messages import KeyAdvert, UnmaskReply
from cardionets_core.privacy.secure_sum.refusals import refusal
from cardionets_core.privacy.secure_sum.shares import combine, seed_digest


def opened_secrets(
    replies: Mapping[str, UnmaskReply],
    adverts: Mapping[str, KeyAdvert],
    *,
    survivors: Collection[str],
    threshold: int,
) -> dict[str, bytes]:
    """Of each dealer the secret whose shares were told: a survivor's seed, else the private mask key.

    Args:
        replies: by site, checked share by share.
        adverts: of all who took part, by site, in order.
        survivors: whose vectors are in the sum.
        threshold: shares that open a secret.

    Raises:
        SecureSumError: ``too-few-sites``; ``secret-wrong``: a site dealt shares of something else than the
            secret that its advert stands for.
    """
    if len(replies) < threshold:
        raise refusal("too-few-sites", f"{len(replies)} sites told shares where {threshold} are needed")
    number = {site: place for place, site in enumerate(adverts, start=1)}
    told: dict[str, list[tuple[int, bytes]]] = {}
    for site in sorted(replies, key=number.__getitem__)[:threshold]:
        for entry in replies[site].shares:
            told.setdefault(entry.dealer, []).append((number[site], entry.share))
    found = {}
    for dealer, shares in told.items():
        secret, advert = combine(shares, threshold=threshold), adverts[dealer]
        if dealer in survivors:
            right = seed_digest(secret, session=advert.session, site=dealer) == advert.seed_check
        else:
            right = public_of(secret) == advert.mask_public
        if not right:
            raise refusal(
                "secret-wrong", f"the shares that {dealer} dealt do not give its secret", site=dealer
            )
        found[dealer] = secret
    return found


def masks_left(
    opened: Mapping[str, bytes], adverts: Mapping[str, KeyAdvert], *, survivors: Collection[str]
) -> list[Mask]:
    """What takes the masks off the survivors' sum; the masks of two survivors have cancelled already.

    Args:
        opened: from ``opened_secrets``.
        adverts: by site.
        survivors: whose vectors are in the sum.
    """
    found = []
    for dealer, secret in opened.items():
        session = adverts[dealer].session
        if dealer in survivors:
            found.append(replace(self_mask(secret, session=session, own=dealer), adds=False))
            continue
        for site in survivors:
            common = agreed(secret, adverts[site].mask_public, site=site)
            # The mask as the site that is gone would have added it is what the survivor's vector lacks.
            found.append(pair_mask(common, session=session, own=dealer, other=site))
    return found


def summed(vectors: Iterable[tuple[str, Ring]], *, survivors: Collection[str]) -> Ring:
    """The sum of the masked vectors, each read once, tile by tile, and let go.

    Args:
        vectors: of every survivor, in any order; arrays in memory or mapped from files.
        survivors: who must be there.

    Raises:
        SecureSumError: ``site-unknown``, ``site-twice``, ``too-few-sites`` or ``vector-differs``.
    """
    total: Ring | None = None
    seen: set[str] = set()
    for site, vector in vectors:
        if site not in survivors:
            raise refusal("site-unknown", f"a vector of {site} came, which is no survivor", site=site)
        if site in seen:
            raise refusal("site-twice", f"two vectors of {site} came", site=site)
        seen.add(site)
        check_vector(vector)
        if total is None:
            total = np.array(vector)
            del vector
            continue
        if vector.dtype != total.dtype or vector.size != total.size:
            raise refusal(
                "vector-differs",
                f"{site} sent {vector.size} values of {vector.dtype}, others {total.size} of {total.dtype}",
                site=site,
            )
        for start in range(0, total.size, TILE_BYTES):
            part = total[start : start + TILE_BYTES]
            np.add(part, vector[start : start + TILE_BYTES], out=part)
        # Else it would still be there while the next one is read.
        del vector
    missing = sorted(set(survivors) - seen)
    if total is None or missing:
        raise refusal("too-few-sites", f"the masked vector of {', '.join(missing)} is missing")
    return total


def opened_sum(vectors: Iterable[tuple[str, Ring]], masks: list[Mask], *, survivors: Collection[str]) -> Ring:
    """The sum of the survivors' vectors without any mask.

    Args:
        vectors: masked, of every survivor.
        masks: from ``masks_left``.
        survivors: who must be there.
    """
    total = summed(vectors, survivors=survivors)
    apply_masks(total, masks)
    return total
