"""What may stand in our logs: every event with its level and the kinds of its fields.

Comes in: the name of an event and what its caller wants to tell. Goes out: what may be told. An event or a
field that is not in the table is a mistake of the program and is refused; a value that is not of its field's
kind (a stranger chose it) is withheld and counted. No kind takes free text: sentences are ``OwnWords``, which
only ``own_words`` makes, of the program's source. It writes nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from cardionets_core.errors import error_codes

Level = Literal["info", "warning", "error"]
Side = Literal["client", "server"]
Value = str | int | float
LEVELS: tuple[Level, ...] = ("info", "warning", "error")
WITHHELD = "withheld"
"""Field: how many values were not of their kind and are not told."""

ORDERS = ("census", "statistics", "train", "evaluate", "secure")
LINKS = (
    "connected", "working", "not connected", "not connected yet", "not admitted", "certificate refused",
    "signature refused: is the clock right?", "waits for approval of code",
)  # fmt: skip
LACKS = ("approvals", "code", "study", "cache")
OUTCOMES = ("completed", "paused", "failed")
LARGEST_WHOLE = 2**63


class OwnWords(str):
    """Text whose every word stands in the program's source, or is of a vocabulary that it names."""

    __slots__ = ()


def _whole(value: object) -> bool:
    return type(value) is int and abs(value) < LARGEST_WHOLE


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(value))  # type: ignore[arg-type]


def _matching(pattern: str) -> Callable[[object], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _one_of(*choices: str) -> Callable[[object], bool]:
    return lambda value: value in choices


def _code(value: object) -> bool:
    return value in error_codes()


FIELDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "site": ("name of a site", _matching(r"[a-z0-9][a-z0-9-]{0,62}")),
    "process": ("name of a process of the service", _matching(r"[a-z][a-z0-9-]{0,30}")),
    "job": ("name of a job of the service", _matching(r"[a-z][a-z0-9-]{0,30}")),
    "restarts": ("whole number", _whole),
    "exit": ("whole number; negative for a signal", _whole),
    "again_s": ("seconds until the next try", _number),
    "cardionets": ("version", _matching(r"[0-9A-Za-z.+-]{1,40}")),
    "flwr": ("version", _matching(r"[0-9A-Za-z.+-]{1,40}")),
    "link": (f"one of: {', '.join(LINKS)}", _one_of(*LINKS)),
    "lacks": (f"one of: {', '.join(LACKS)}", _one_of(*LACKS)),
    "kind": (f"one of: {', '.join(ORDERS)}", _one_of(*ORDERS)),
    "study": ("SHA-256 of the study", _matching(r"[0-9a-f]{64}")),
    "study_name": ("name of a study", _matching(r"[a-z0-9][a-z0-9_-]{0,62}")),
    "epsilon_spent": ("epsilon of all that was spent or reserved before", _number),
    "epsilon_after": ("epsilon that it would be with the refused round", _number),
    "epsilon_limit": ("epsilon that may not be passed", _number),
    "delta": ("at which these epsilons are reckoned", _number),
    "phase": ("whole number, from 0", _whole),
    "round": ("whole number; 0 is the census", _whole),
    "attempt": ("whole number", _whole),
    "seconds": ("how long it took", _number),
    "bytes": ("whole number", _whole),
    "text_bytes": ("whole number", _whole),
    "digest": ("SHA-256 of what left", _matching(r"[0-9a-f]{64}")),
    "bundle": ("SHA-256 of the code", _matching(r"[0-9a-f]{64}")),
    "code": ("code of docs/exit-codes.md", _code),
    "what": ("own words", lambda value: isinstance(value, OwnWords)),
    "where": ("own words", lambda value: isinstance(value, OwnWords)),
    "remedy": ("own words", lambda value: isinstance(value, OwnWords)),
    "error": ("name of an exception's class", lambda value: isinstance(value, OwnWords)),
    "at": ("places in the program's source", lambda value: isinstance(value, OwnWords)),
    "outcome": (f"one of: {', '.join(OUTCOMES)}", _one_of(*OUTCOMES)),
}
"""Field to what it holds, and whether a value is that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the table.

    Attributes:
        level: ``info``, ``warning`` or ``error``.
        meaning: in a few words, for people and the docs.
        fields: that it may have, beside ``site``.
    """

    level: Level
    meaning: str
    fields: tuple[str, ...] = ()


_ROUND = ("kind", "study", "phase", "round", "attempt")
_BESIDE = ("study_name", "epsilon_spent", "epsilon_after", "epsilon_limit", "delta")
"""What a refusal's sentence names; see ``sentence``."""
_LEFT = (*_ROUND, "bytes", "text_bytes", "digest")


def _event(level: Level, meaning: str, *fields: str) -> Event:
    return Event(level=level, meaning=meaning, fields=fields)


EVENTS: Mapping[str, Event] = {
    # the service, of either side
    "service-started": _event("info", "the service starts", "cardionets", "flwr"),
    "service-ended": _event("info", "the service has ended in order"),
    "process-started": _event("info", "a process was started", "process", "restarts"),
    "process-ready": _event("info", "a process does its work", "process", "restarts"),
    "process-ended": _event(
        "error", "a process ended by itself; it is started again", "process", "exit", "again_s"
    ),
    "process-unanswered": _event(
        "warning",
        "a process ended since the other side does not answer; it is started again",
        "process",
        "exit",
        "again_s",
    ),
    "process-stopped": _event("info", "a process is ended with the service", "process"),
    "leftover-ended": _event("warning", "a process of an earlier, killed service was ended", "process"),
    "job-failed": _event("error", "a job of the service failed; it is tried again", "job", "code", "error"),
    "state-unwritten": _event("error", "service.json cannot be written; the processes go on"),
    # the hospital
    "code-refused": _event("error", "code came that is not approved here; none of it ran", "code", "bundle"),
    "site-lacks": _event("warning", "orders are refused until this is there", "lacks"),
    "link-changed": _event("info", "the link came, went or was refused", "link"),
    "order-reached": _event("info", "an order came", *_ROUND),
    "trained": _event("info", "modules were trained on the site's data", *_ROUND, "seconds"),
    "measured": _event("info", "a model was measured on the site's data", *_ROUND, "seconds"),
    "summed": _event("info", "sums were made of the site's data", *_ROUND, "seconds"),
    "reply-left": _event("info", "a reply left the building", *_LEFT),
    "reply-sent-again": _event("info", "a stored reply left once more", *_LEFT),
    "refusal-left": _event("warning", "a code left, and nothing else", *_LEFT, "code"),
    "order-refused": _event(
        "error", "why the order was refused", *_ROUND, "code", "what", "where", "remedy", *_BESIDE
    ),
    "order-failed": _event(
        "error", "the order ended in an error that nobody expected", *_ROUND, "code", "error", "at"
    ),
    "order-answered": _event("info", "the order is done with", *_ROUND, "seconds"),
    # the coordinator
    "key-registered": _event("info", "a site's key may connect"),
    "key-removed": _event("warning", "a revoked site's key may connect no longer"),
    "certificate-renewed": _event("info", "the server's certificate was renewed"),
    "study-ended": _event("info", "the study's run has ended", "study", "outcome"),
    "study-resumed": _event("warning", "the study's run had died; it goes on as a new run", "study"),
    "study-given-up": _event("error", "the study's run died again and again", "study"),
}
"""Every event of our logs; docs/logs.md is held to it."""


def told(event: str, fields: Mapping[str, Value]) -> dict[str, Value]:
    """What may be told of an event.

    Args:
        event: a key of ``EVENTS``.
        fields: what the caller wants to tell; an empty text is left out.

    Returns:
        The fields that are of their kinds, and how many were withheld.

    Raises:
        KeyError: the table has no such event, or the event no such field.
    """
    allowed = {"site", *EVENTS[event].fields}
    if strange := sorted(set(fields) - allowed):
        raise KeyError(f"the event {event} has no fields {strange}")
    given = {name: value for name, value in fields.items() if value != ""}
    found = {name: value for name, value in given.items() if FIELDS[name][1](value)}
    if len(found) < len(given):
        found[WITHHELD] = len(given) - len(found)
    return found
