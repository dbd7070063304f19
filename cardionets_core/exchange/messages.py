"""Orders and replies as frozen dataclasses, and as an envelope of scalars and arrays.

Steps 0, 8 and 10 of the walk. ``Envelope`` is the only thing that an app needs to translate into Flower's
records. Reading an envelope is strict: a field that is missing or of the wrong type is an error, never a
default, and so is one that nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cardionets_core.errors import FormatTooNewError, OrderRefusedError, PeerError, ReplyRefusedError
from cardionets_core.exchange.fields import (
    DIGEST,
    Scalar,
    code,
    digests,
    json_text,
    number,
    text,
    whole,
    within,
)
from cardionets_core.exchange.heads import (
    NO_HEAD,
    Head,
    order_head_fields,
    read_order_heads,
    read_reply_head,
    reply_head_fields,
)
from cardionets_core.exchange.names import check_names
from cardionets_core.exchange.packed import (
    Envelope,
    PackedModule,
    put_modules,
    put_sums,
    take_modules,
    take_sums,
)
from cardionets_core.exchange.secure import (
    SecureStep,
    put_answer,
    put_step,
    take_masked,
    take_message,
    take_step,
)

FORMAT_VERSION = 4

Kind = Literal["census", "statistics", "train", "evaluate", "secure"]
MEASURED = "measured/"
"""Begins the names of the metric sums in a reply to an order to train."""
PERSONAL = "personal/"
"""Begins the names of the metric sums of a site's own model, after ``MEASURED`` where both apply."""
KINDS: tuple[Kind, ...] = ("census", "statistics", "train", "evaluate", "secure")
MOST_ROUNDS = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundName:
    """Names a round once and for all.

    Attributes:
        study_digest: SHA-256 of the study.
        phase: index in the study's list of phases, from 0.
        round: number of the round in its phase, from 1; 0 for a census.
        attempt: from 1.
    """

    study_digest: str
    phase: int
    round: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the coordinator asks of a site.

    Attributes:
        kind: ``census`` (what could you serve), ``statistics`` (sums before a round's steps), ``train``,
            ``evaluate``, or ``secure`` (a step of a secure sum alone).
        name: the round.
        study_json: the whole study.
        modules: global tensors of the modules that the phase trains, but for those that the site holds; and
            what the study's strategy sends beside them, as ``MODULE.NAME``.
        trained: name to digest of those modules, sent or held; empty where all of them are sent.
        frozen: name to digest of the modules that the phase only reads.
        frozen_modules: tensors of those of them that the site does not hold yet.
        shared: float64 arrays: the sites' added statistics of this round, where the phase has any.
        split: which held-out patients an ``evaluate`` order measures.
        measure: whether a site that trains first measures the model that came, on its validation patients.
        secure: a step of a secure sum; with any other kind the step that masks the answer.
        head: of the server's journal.
        known_head: of the site's journal, as the server knows it.
    """

    kind: Kind
    name: RoundName
    study_json: str
    modules: Mapping[str, PackedModule] = field(default_factory=dict)
    trained: Mapping[str, str] = field(default_factory=dict)
    frozen: Mapping[str, str] = field(default_factory=dict)
    frozen_modules: Mapping[str, PackedModule] = field(default_factory=dict)
    shared: Mapping[str, np.ndarray] = field(default_factory=dict)
    split: Literal["validation", "test"] = "validation"
    measure: bool = False
    secure: SecureStep | None = None
    head: Head = NO_HEAD
    known_head: Head = NO_HEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What leaves a site.

    Attributes:
        site: the site's name.
        name: the round that it answers.
        code: empty if all went well, else the code of a refusal; then nothing else is filled.
        modules: tensors of the modules that were trained here; a module that was not is absent.
        samples: module to the number of samples that produced its gradient.
        sums: float64 arrays that may be added over sites; those of a measurement before the training begin
            with ``MEASURED``.
        values: other scalars, such as the mean loss.
        facts: JSON text of a census.
        measure_code: why a site that trained did not measure, though it was asked to; else empty.
        secure: a message of a secure sum.
        masked: uint64, the masked vector, in place of modules, samples, sums and values.
        head: of the site's journal; its last line is this reply's.
    """

    site: str
    name: RoundName
    code: str = ""
    modules: Mapping[str, PackedModule] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    facts: str = ""
    measure_code: str = ""
    secure: bytes = b""
    masked: np.ndarray | None = None
    head: Head = NO_HEAD


def order_to_envelope(order: Order) -> Envelope:
    """Lay an order out for the wire."""
    fields: dict[str, Scalar] = {**_name_fields(order.name), "kind": order.kind, "split": order.split}
    fields["study"] = order.study_json
    fields["measure"] = int(order.measure)
    arrays: dict[str, np.ndarray] = {}
    put_modules(fields, arrays, "module", order.modules)
    put_modules(fields, arrays, "frozen", order.frozen_modules)
    put_sums(arrays, "shared", order.shared)
    put_step(fields, order.secure)
    fields.update({f"digest/{name}": digest for name, digest in order.frozen.items()})
    fields.update({f"trained/{name}": digest for name, digest in order.trained.items()})
    fields.update(order_head_fields(order.head, order.known_head))
    return Envelope(fields=fields, arrays=arrays)


def order_from_envelope(envelope: Envelope) -> Order:
    """Read an order.

    Raises:
        FormatTooNewError: the coordinator speaks a newer format.
        OrderRefusedError: a field is missing or wrong.
    """
    try:
        check_names([*envelope.fields, *envelope.arrays])
        name = _read_name(envelope.fields)
        kind = text(envelope.fields, "kind")
        split = text(envelope.fields, "split")
        if kind not in KINDS or split not in ("validation", "test"):
            raise OrderRefusedError("the order is of an unknown kind or split", where="order")
        modules, frozen = take_modules(envelope, "module"), take_modules(envelope, "frozen")
        if any(module.form != "fp32" for module in (*modules.values(), *frozen.values())):
            raise OrderRefusedError("the order's modules are not in fp32", where="order")
        head, known_head = read_order_heads(envelope.fields)
        order = Order(
            kind=kind,
            name=name,
            study_json=json_text(envelope.fields, "study"),
            modules=modules,
            trained=digests(envelope.fields, "trained"),
            frozen=digests(envelope.fields, "digest"),
            frozen_modules=frozen,
            shared=take_sums(envelope, "shared"),
            split=split,  # type: ignore[arg-type]
            measure=within(envelope.fields, "measure", most=1) == 1,
            secure=take_step(envelope.fields),
            head=head,
            known_head=known_head,
        )
        _check_read(envelope, order_to_envelope(order))
        return order
    except FormatTooNewError:
        raise
    except PeerError as error:
        raise OrderRefusedError(error.what, where="order") from error


def reply_to_envelope(reply: Reply) -> Envelope:
    """Lay a reply out for the wire."""
    fields: dict[str, Scalar] = {**_name_fields(reply.name), "site": reply.site, "code": reply.code}
    fields["facts"] = reply.facts
    fields["measure-code"] = reply.measure_code
    arrays: dict[str, np.ndarray] = {}
    put_modules(fields, arrays, "module", reply.modules)
    fields.update({f"samples/{name}": int(count) for name, count in reply.samples.items()})
    fields.update({f"value/{name}": float(value) for name, value in reply.values.items()})
    put_sums(arrays, "sum", reply.sums)
    put_answer(fields, arrays, reply.secure, reply.masked)
    fields.update(reply_head_fields(reply.head))
    return Envelope(fields=fields, arrays=arrays)


def reply_from_envelope(envelope: Envelope) -> Reply:
    """Read a reply; its tensors and counts are judged later, by the server's reply checks.

    Raises:
        ReplyRefusedError: a field is missing or of the wrong type.
    """
    try:
        fields = envelope.fields
        check_names([*fields, *envelope.arrays])
        reply = Reply(
            site=text(fields, "site"),
            name=_read_name(fields),
            code=code(fields, "code"),
            modules=take_modules(envelope, "module"),
            samples={
                key.removeprefix("samples/"): whole(fields, key)
                for key in fields
                if key.startswith("samples/")
            },
            sums=take_sums(envelope, "sum"),
            values={
                key.removeprefix("value/"): number(fields, key) for key in fields if key.startswith("value/")
            },
            facts=json_text(fields, "facts", empty=True),
            measure_code=code(fields, "measure-code"),
            secure=take_message(fields),
            masked=take_masked(envelope.arrays),
            head=read_reply_head(fields),
        )
        _check_read(envelope, reply_to_envelope(reply))
        return reply
    except PeerError as error:
        raise ReplyRefusedError(error.what, where="reply") from error


def _name_fields(name: RoundName) -> dict[str, Scalar]:
    return {
        "format": FORMAT_VERSION,
        "study-digest": name.study_digest,
        "phase": name.phase,
        "round": name.round,
        "attempt": name.attempt,
    }


def _read_name(fields: Mapping[str, Scalar]) -> RoundName:
    version = whole(fields, "format")
    if version > FORMAT_VERSION:
        raise FormatTooNewError(
            f"the other side speaks format {version}, this side reads up to {FORMAT_VERSION}",
            where="exchange",
            remedy="upgrade CardioNets on this side",
        )
    if version < FORMAT_VERSION:
        # What is read here is laid out as in this format alone.
        raise PeerError(f"the other side speaks format {version}, which is read no more", where="exchange")
    digest = text(fields, "study-digest")
    # A refusal may answer what named no study.
    if digest and DIGEST.fullmatch(digest) is None:
        raise PeerError("the field study-digest holds no digest", where="exchange")
    return RoundName(
        study_digest=digest,
        phase=within(fields, "phase", most=MOST_ROUNDS),
        round=within(fields, "round", most=MOST_ROUNDS),
        attempt=within(fields, "attempt", most=MOST_ROUNDS),
    )


def _check_read(came: Envelope, read: Envelope) -> None:
    """Refuse what was read by nobody: it would travel, and be kept, unseen."""
    strangers = (came.fields.keys() ^ read.fields.keys()) | (came.arrays.keys() ^ read.arrays.keys())
    if strangers:
        raise PeerError(f"nobody reads {min(strangers)}", where="exchange")
