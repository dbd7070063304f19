"""What the site does at this moment, and since when: by the end of its own log.

Comes in: the lines of ``client.log``. Goes out: the order in hand or the last one, since when the link is as
it is, and the last refusals with what to do. It asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cardionets_core.logs.reading import Line, moment_of

_ORDER = ("kind", "study", "phase", "round", "attempt")
_STEPS = {"trained": "trained", "measured": "measured", "summed": "made its sums", "reply-left": "answered",
          "reply-sent-again": "answered again", "refusal-left": "refused"}  # fmt: skip


def now_of(lines: Iterable[Line], *, running: bool) -> dict[str, Any]:
    """What the log says of this moment.

    Args:
        lines: of the log, oldest first.
        running: whether the service runs; without it no order is in hand.

    Returns:
        JSON-ready: ``order`` (None, or its name with ``state`` ``in hand``, ``done``, ``refused`` or ``cut
        off``, ``since_s``, ``step`` and ``seconds``; only ``code`` and ``bundle`` in the place of its name
        where the order was refused before it was read), ``link_since_s``.
    """
    order: dict[str, Any] | None = None
    unread: dict[str, Any] | None = None
    link_since_s: float | None = None
    for line in lines:
        event, when_s = line["event"], moment_of(line).timestamp()
        if event == "order-reached":
            order = {**_named(line), "state": "in hand", "since_s": when_s, "step": "", "seconds": None}
            unread = None
        elif event == "code-refused" or (event == "order-refused" and "phase" not in line):
            told: dict[str, Any] = {name: line[name] for name in ("code", "bundle") if name in line}
            unread = {**told, "state": "refused", "since_s": when_s, "step": "refused", "seconds": None}
        elif event == "link-changed":
            link_since_s = when_s
        elif event in ("service-started", "service-ended"):
            link_since_s = None
            if order is not None and order["state"] == "in hand":
                order["state"] = "cut off"
        if order is not None and _named(line) == {name: order[name] for name in _ORDER if name in order}:
            _step(order, line)
    if order is not None and order["state"] == "in hand" and not running:
        order["state"] = "cut off"
    if unread is not None and (order is None or order["state"] != "in hand"):
        order = unread
    return {"order": order, "link_since_s": link_since_s}


def _named(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in _ORDER if name in line}


def _step(order: dict[str, Any], line: Line) -> None:
    event = line["event"]
    order["step"] = _STEPS.get(event, order["step"])
    if event == "order-answered":
        order["state"] = "refused" if order["step"] == "refused" else "done"
        order["seconds"] = line.get("seconds")
