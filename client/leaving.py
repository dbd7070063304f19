"""How a message leaves: its line in the site's journal first, then the head that the line makes (row 9).

Comes in: an envelope that passed the rules, or a code. Goes out: the envelope as it travels, with nothing in
it that can still be changed. The digest in the line is that of these very fields and arrays, without the
head, which follows from the line. It judges no content; a code is checked to be one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cardionets_core.audit import journal
from cardionets_core.config.site import SiteConfig
from cardionets_core.durable import on_disk
from cardionets_core.errors import CardioNetsError, OrderRefusedError
from cardionets_core.exchange.content_digest import content_digest, text_bytes
from cardionets_core.exchange.heads import NO_HEAD, Head, reply_head_fields
from cardionets_core.exchange.messages import Envelope, Order, Reply, RoundName, reply_to_envelope
from cardionets_core.logs.events import EVENTS
from cardionets_core.privacy.disclosure import DIGEST, SITE, check_refusal
from client.heads import Facts, journal_key, known_head_agrees, server_head_facts, signed_head
from client.journal import JOURNAL, mend
from client.log import site_log


def refuse(
    code: str,
    *,
    name: RoundName,
    site: str,
    order: Order | None,
    config: SiteConfig | None,
    root: Path | None,
) -> Envelope:
    """Let a code out, and nothing else.

    Where the site's document or its disk cannot be used there is no line and no head; the code leaves all the
    same, since it tells nothing.

    Args:
        code: of the error tree.
        name: of the round, as far as the message could be read.
        site: the site's name, or empty.
        order: what was asked, if it could be read.
        config: what the site permits, if its document could be read.
        root: the folder of ``site.yaml``.
    """
    plain = RoundName(
        study_digest=name.study_digest if DIGEST.fullmatch(name.study_digest) else "",
        phase=name.phase,
        round=name.round,
        attempt=name.attempt,
    )
    named = site if SITE.fullmatch(site) else ""
    envelope = bare(Reply(site=named, name=plain, code=code))
    check_refusal(envelope)
    facts: Facts = {**round_facts(order.kind if order else "", plain), "code": code}
    if config is not None:
        try:
            return leave(envelope, "refusal-left", facts, order=order, config=config, root=root)
        except (CardioNetsError, OSError):
            pass  # the log of the app names the first fault; this one is its consequence or the same
    return _sealed(envelope, NO_HEAD)


def bare(reply: Reply) -> Envelope:
    """The reply laid out, without a head."""
    envelope = reply_to_envelope(reply)
    fields = {name: v for name, v in envelope.fields.items() if name not in reply_head_fields(NO_HEAD)}
    return Envelope(fields=fields, arrays=envelope.arrays)


def leave(
    envelope: Envelope,
    event: str,
    facts: Mapping[str, str | int | float],
    *,
    order: Order | None,
    config: SiteConfig,
    root: Path | None,
) -> Envelope:
    """Write the journal's line.

    Args:
        envelope: passed the rules.
        event: of the line.
        facts: of the line, beside digest, bytes and the server's head.
        order: that is answered, if it could be read.
        config: what the site permits.
        root: the folder of ``site.yaml``; by default that of the state folder.

    Returns:
        What travels: the envelope with the head that the line makes.

    Raises:
        OrderRefusedError: the order's head of the server's journal is forged; a code leaves all the same.
        StorageFailedError: the disk did not take the line.
    """
    state, agrees = config.folders.state, True
    path, root = state / JOURNAL, root or state.parent
    heads: Facts = {}
    if order is not None:
        try:
            heads = server_head_facts(order, root)
        except OrderRefusedError:
            if event != "refusal-left":
                raise
            heads = {"server_head_is": "forged"}
    with on_disk(state, keeps="nothing left the site"):
        key = journal_key(root, state)
        mend(path)
        if order is not None and not known_head_agrees(order, state):
            agrees = False
            claimed: Facts = {"known_lines": order.known_head.lines, "known_head": order.known_head.hash}
            journal.append(path, "journal-contradicted", {**round_facts(order.kind, order.name), **claimed})
        facts = {**facts, **_size_facts(envelope)}
        lines, digest = journal.append_line(path, event, {**facts, **heads})
    told = {name: facts[name] for name in EVENTS[event].fields if name in facts}
    site_log(root, site=config.site).write(event, **told)
    return _sealed(envelope, signed_head(lines, digest, site=config.site, key=key, agrees=agrees))


def _sealed(envelope: Envelope, head: Head) -> Envelope:
    """The envelope with the head; from here on nothing of it can be changed."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in envelope.arrays.items():
        arrays[name] = value.view()
        arrays[name].flags.writeable = False
    fields = {**envelope.fields, **reply_head_fields(head)}
    return Envelope(fields=MappingProxyType(fields), arrays=MappingProxyType(arrays))


def round_facts(kind: str, name: RoundName) -> Facts:
    """Which order a line is of."""
    return {
        "kind": kind,
        "study": name.study_digest,
        "phase": name.phase,
        "round": name.round,
        "attempt": name.attempt,
    }


def _size_facts(envelope: Envelope) -> Facts:
    return {
        "bytes": envelope.nbytes,
        "text_bytes": text_bytes(envelope),
        "digest": content_digest(envelope),
    }
