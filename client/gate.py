"""The gate: the last step before a reply leaves the building (row 9 of the walk).

Comes in: a reply, and who stands behind it. Goes out: the envelope whose fields and arrays the app puts into
Flower's records as they are. It trusts nobody above it: what the study, the order and the site's policy do
not name is stopped with a code. The rules lie in ``cardionets_core.privacy.disclosure``; the journal's line
and the head that travels with the reply are made by ``leaving``, through which codes go too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cardionets_core.config.site import SiteConfig
from cardionets_core.errors import DisclosureRefusedError, TooFewPatientsError
from cardionets_core.exchange.heads import NO_HEAD, reply_head_fields
from cardionets_core.exchange.messages import MEASURED, Envelope, Order, Reply, reply_from_envelope
from cardionets_core.privacy.disclosure import Allowed, Limits, check_masked, told_envelope
from client.heads import Facts
from client.leaving import bare, leave, round_facts
from client.local_tensors import check_none_leaves
from client.permitted import Permitted
from client.updates import check_codes

CENSUS = Permitted()


def release(
    reply: Reply,
    *,
    order: Order,
    config: SiteConfig,
    patients: int,
    permitted: Permitted = CENSUS,
    measured: int | None = None,
    again: bool = False,
    root: Path | None = None,
    mask: Callable[[Reply], np.ndarray] | None = None,
) -> Envelope:
    """Let a reply out, or stop it.

    Args:
        reply: what the site wants to answer.
        order: what was asked.
        config: what the site permits.
        patients: people behind the reply's updates and sums; 0 for a census.
        permitted: what the study allows in it.
        measured: people behind the sums that were measured before the training, or None if there are none.
        again: whether the reply left before, and is asked for once more.
        root: the folder of ``site.yaml``; by default that of the state folder.
        mask: makes the vector of a secure sum that leaves in the place of all else, once that has passed.

    Returns:
        What travels; its line is on the disk.

    Raises:
        DisclosureRefusedError: the reply would disclose more than the site permits.
        TooFewPatientsError: too few people stand behind it.
        OrderRefusedError: the order's head of the server's journal is forged.
        StorageFailedError: the disk did not take the journal's line.
    """
    policy = config.policy
    _check_people(reply, order, config, patients=patients, measured=measured)
    strangers = sorted(set(reply.modules) - set(permitted.layouts))
    if strangers or (reply.modules and order.kind != "train"):
        raise DisclosureRefusedError(f"modules {strangers} may not leave in this phase", where="gate")
    check_none_leaves(reply.modules, order=order, rule=permitted.rule)
    check_codes(reply.modules, rule=permitted.rule)
    allowed = Allowed(
        kind=order.kind,
        name=order.name,
        site=config.site,
        layouts=permitted.layouts,
        form=permitted.rule.form,
        sums=permitted.sums,
        counts=permitted.counts,
        values=permitted.values,
        measures=order.kind == "train" and order.measure,
    )
    limits = Limits(
        minimum_cell=policy.minimum_cell,
        count_rounding=policy.count_rounding,
        coarse=policy.disclosure.histograms == "coarse",
        cohort_sizes=policy.cohort_sizes,
        maximum_bytes=policy.maximum_reply_bytes,
        maximum_text_bytes=policy.maximum_text_bytes,
        judged=again,
    )
    envelope = told_envelope(bare(reply), allowed, limits)
    if mask is not None:
        told = {**envelope.fields, **reply_head_fields(NO_HEAD)}
        vector = mask(reply_from_envelope(Envelope(fields=told, arrays=envelope.arrays)))
        envelope = bare(Reply(site=reply.site, name=reply.name, masked=vector))
        check_masked(envelope, allowed, limits)
    behind: Facts = {"modules": ",".join(sorted(reply.modules)), "sums": len(reply.sums)}
    facts: Facts = {**round_facts(order.kind, order.name), "patients": patients, **behind}
    if order.secure is not None:
        facts |= {"secure": order.secure.step, "part": order.secure.part}
    event = "reply-sent-again" if again else "reply-left"
    return leave(envelope, event, facts, order=order, config=config, root=root)


def _check_people(
    reply: Reply, order: Order, config: SiteConfig, *, patients: int, measured: int | None
) -> None:
    policy = config.policy
    fewest = policy.minimum_cell if order.kind == "evaluate" else policy.minimum_patients
    if order.kind not in ("census", "secure") and patients < fewest:
        raise TooFewPatientsError(
            f"{patients} patients stand behind this reply; the policy asks for {fewest}", where="gate"
        )
    held_out = max(1, policy.minimum_cell)
    if any(name.startswith(MEASURED) for name in reply.sums) and (measured or 0) < held_out:
        raise TooFewPatientsError(
            f"{measured or 0} held-out patients stand behind this reply's metrics; "
            f"the policy asks for {policy.minimum_cell}",
            where="gate",
        )
