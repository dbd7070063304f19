"""What orders and replies of a secure sum carry beside all else, or in place of it (rows 0 and 10).

Comes in: a step of the protocol and its message in bytes. Goes out: fields and arrays of an envelope, and
back. Messages differ from site to site, so they stand among the fields: orders to many sites share their
arrays. What the bytes say is ``privacy.secure_sum``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cardionets_core.errors import PeerError
from cardionets_core.exchange.fields import Scalar, text

Step = Literal["advertise", "share", "mask", "confirm", "unmask"]
SecurePart = Literal["statistics", "train", "validation", "test"]
MASKED = "masked"
MESSAGE = "secure-message"
MOST_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureStep:
    """A step of a secure sum.

    Attributes:
        step: which; ``mask`` goes with the order that it hides the answer of.
        part: which sum of the round.
        message: of the step, to the site; empty where the step has none.
    """

    step: Step
    part: SecurePart
    message: bytes = b""


def put_step(fields: dict[str, Scalar], step: SecureStep | None) -> None:
    """Lay a step out; nothing where there is none."""
    if step is not None:
        fields["secure-step"], fields["secure-part"] = step.step, step.part
        fields[MESSAGE] = step.message.decode("ascii")


def take_step(fields: Mapping[str, Scalar]) -> SecureStep | None:
    """Read a step, if there is one.

    Raises:
        PeerError: it cannot be read.
    """
    if "secure-step" not in fields:
        return None
    step, part = text(fields, "secure-step"), text(fields, "secure-part")
    if step not in get_args(Step) or part not in get_args(SecurePart):
        raise PeerError("a secure sum has no such step or part", where="exchange")
    return SecureStep(step=step, part=part, message=take_message(fields))  # type: ignore[arg-type]


def put_answer(
    fields: dict[str, Scalar], arrays: dict[str, np.ndarray], message: bytes, masked: np.ndarray | None
) -> None:
    """Lay out what a site answers to a step."""
    if message:
        fields[MESSAGE] = message.decode("ascii")
    if masked is not None:
        arrays[MASKED] = masked


def take_message(fields: Mapping[str, Scalar]) -> bytes:
    """The bytes of a message; empty where there are none.

    Raises:
        PeerError: they are no text of the protocol, or too many.
    """
    if MESSAGE not in fields:
        return b""
    found = text(fields, MESSAGE)
    if len(found) > MOST_BYTES or not found.isascii():
        raise PeerError("the message of a secure sum came in another form", where="exchange")
    return found.encode("ascii")


def take_masked(arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The masked vector, if there is one.

    Raises:
        PeerError: it is of another type.
    """
    found = arrays.get(MASKED)
    if found is not None and (found.dtype != np.uint64 or found.ndim != 1):
        raise PeerError("a masked vector came in another form", where="exchange")
    return found
