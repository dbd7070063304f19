"""The gate: the last place before a reply leaves the building (step 9 of the walk).

It bounds and counts what leaves and writes a journal line with its digest and bytes. It trusts nobody above
it: a reply that names another module, holds a value that is not finite, stands for too few patients or is
too large is stopped with a code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from cardionets_core.audit import journal
from cardionets_core.config.site import SiteConfig
from cardionets_core.durable import on_disk
from cardionets_core.errors import DisclosureRefusedError, TooFewPatientsError
from cardionets_core.exchange.messages import MEASURED, Envelope, Order, Reply, reply_to_envelope
from cardionets_core.training.local_rule import LocalRule
from client.journal import JOURNAL
from client.local_tensors import check_none_leaves
from client.updates import check_codes

PLAIN = LocalRule()


def release(
    reply: Reply,
    *,
    order: Order,
    config: SiteConfig,
    patients: int,
    trains: Iterable[str],
    measured: int | None = None,
    again: bool = False,
    rule: LocalRule = PLAIN,
) -> Reply:
    """Let a reply out, or stop it.

    Args:
        reply: what the site wants to answer.
        order: what was asked.
        config: what the site permits.
        patients: people behind the reply's updates and sums; 0 for a census.
        trains: modules that may leave in this phase.
        measured: people behind the sums that were measured before the training, or None if there are none.
        again: whether the reply left before, and is asked for once more.
        rule: what the study's strategy adds: further tensors that travel beside these modules, and tensors of
            them that may not leave.

    Returns:
        The same reply, after its journal line is on disk.

    Raises:
        DisclosureRefusedError: the reply would disclose more than the site permits.
        TooFewPatientsError: too few people stand behind it.
        StorageFailedError: the disk did not take the journal's line.
    """
    policy = config.policy
    if order.kind != "census":
        fewest = policy.minimum_cell if order.kind == "evaluate" else policy.minimum_patients
        if patients < fewest:
            raise TooFewPatientsError(
                f"{patients} patients stand behind this reply; the policy asks for {fewest}", where="gate"
            )
    if any(name.startswith(MEASURED) for name in reply.sums) and (measured or 0) < max(
        1, policy.minimum_cell
    ):
        raise TooFewPatientsError(
            f"{measured or 0} held-out patients stand behind this reply's metrics; "
            f"the policy asks for {policy.minimum_cell}",
            where="gate",
        )
    trains = tuple(trains)
    strangers = sorted(set(reply.modules) - {*trains, *rule.extra_names(trains)})
    if strangers or (reply.modules and order.kind != "train"):
        raise DisclosureRefusedError(f"modules {strangers} may not leave in this phase", where="gate")
    if reply.facts and order.kind != "census":
        raise DisclosureRefusedError("only a census may carry facts", where="gate")
    check_none_leaves(reply.modules, order=order, rule=rule)
    check_codes(reply.modules, rule=rule)
    envelope = reply_to_envelope(reply)
    for name, value in envelope.arrays.items():
        if not np.isfinite(value).all():
            raise DisclosureRefusedError(f"{name} holds values that are not finite", where="gate")
    if envelope.nbytes > policy.maximum_reply_bytes:
        raise DisclosureRefusedError(
            f"the reply has {envelope.nbytes} bytes; the policy allows {policy.maximum_reply_bytes}",
            where="site.yaml: policy.maximum_reply_bytes",
        )
    facts: dict[str, str | int | float] = {
        "kind": order.kind,
        "study": order.name.study_digest,
        "phase": order.name.phase,
        "round": order.name.round,
        "attempt": order.name.attempt,
        "bytes": envelope.nbytes,
        "digest": _digest(envelope),
        "patients": patients,
        "modules": ",".join(sorted(reply.modules)),
        "sums": len(reply.sums),
    }
    with on_disk(config.folders.state, keeps="nothing left the site"):
        torn = journal.mend(config.folders.state / JOURNAL)
        if torn:
            journal.append(config.folders.state / JOURNAL, "journal-mended", {"torn_bytes": torn})
        journal.append(config.folders.state / JOURNAL, "reply-sent-again" if again else "reply-left", facts)
    return reply


def _digest(envelope: Envelope) -> str:
    state = hashlib.sha256()
    for name, scalar in sorted(envelope.fields.items()):
        state.update(f"{name}={scalar!r}\n".encode())
    for name, value in sorted(envelope.arrays.items()):
        state.update(f"{name}:{value.dtype}:{value.shape}\n".encode())
        state.update(np.ascontiguousarray(value).data)
    return state.hexdigest()
