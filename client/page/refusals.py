"""Why orders were refused here: equal refusals told once, with what has become of them since.

Comes in: lines of ``client.log``, and what IT has approved by now. Goes out: dicts for the terminal and the
page, with the site's own folder in what is to be done. It reads no file and changes nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cardionets_core.logs.reading import Line, moment_of
from cardionets_core.logs.sentence import sentence

REFUSED = ("order-refused", "order-failed", "code-refused")
MOST = 5
_TOLD = (
    "code", "what", "where", "remedy", "error", "at", "kind", "study", "phase", "round", "attempt", "bundle",
    "study_name", "epsilon_spent", "epsilon_after", "epsilon_limit", "delta",
)  # fmt: skip
_SAME = ("code", "what", "where", "remedy", "error", "at", "study", "bundle")
"""What makes two refusals the same one."""
_APPROVE = re.compile(r"cardionets-client approve(?: FOLDER)?(?![\w-])(?! [/'~.])")
_HIDDEN_STUDY = "the study … (…)"
_SHORT = 16

Approved = Mapping[tuple[str, str], float]
"""(``code`` or ``study``, digest) to when it was approved, of what is approved now."""


def refusals_of(
    lines: Iterable[Line], *, root: Path, approved: Approved, most: int = MOST
) -> list[dict[str, Any]]:
    """Refusals, equal ones as one, the latest last.

    Args:
        lines: of the log, oldest first.
        root: the site's folder, for what is to be done.
        approved: of this moment.
        most: that are told.

    Returns:
        JSON-ready, each: ``time_s`` of the latest, ``first_s``, ``count``, ``left_since`` (replies that left
        after it), ``approved_s`` (since when what was refused is approved; None where it is not, or where
        that is not why), and the fields of its line.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    left = 0
    for line in lines:
        left += line["event"] == "reply-left"
        if line["event"] not in REFUSED:
            continue
        told = _refusal(line, root)
        key = tuple(told.get(name) for name in _SAME)
        before = found.pop(key, {"first_s": told["time_s"], "count": 0})  # the latest stands last
        found[key] = {**told, "first_s": before["first_s"], "count": before["count"] + 1, "_left": left}
    latest = list(found.values())[-most:]
    return [
        {**_filled(each), "left_since": left - each["_left"], "approved_s": _approved_since(each, approved)}
        for each in latest
    ]


def _refusal(line: Line, root: Path) -> dict[str, Any]:
    told = {name: line[name] for name in _TOLD if name in line}
    if line["event"] == "code-refused":
        told["what"] = f"the code {line.get('bundle', '')} is not approved on this site"
        told["remedy"] = "look at it with: cardionets-client approve"
    if told.get("where") == "order":
        del told["where"]
    if isinstance(told.get("remedy"), str):
        command = f"cardionets-client approve {shlex.quote(str(root))}"
        told["remedy"] = _APPROVE.sub(lambda _: command, told["remedy"])
    return {"time_s": moment_of(line).timestamp(), **told}


def _filled(told: dict[str, Any]) -> dict[str, Any]:
    """With numbers and names in its sentence; refusals that are told as one may differ in them."""
    told = {name: value for name, value in told.items() if name != "_left"}
    what, study = sentence(told), told.get("study")
    if isinstance(study, str):  # a line without the name
        what = what.replace(_HIDDEN_STUDY, f"the study {study[:_SHORT]}")
    return {**told, **({"what": what} if what else {})}


def _approved_since(refusal: Mapping[str, Any], approved: Approved) -> float | None:
    kind, digest = {
        "study-not-approved": ("study", refusal.get("study")),
        "code-not-approved": ("code", refusal.get("bundle")),
    }.get(str(refusal.get("code")), ("", None))
    since = approved.get((kind, str(digest)))
    return since if since is not None and since >= refusal["time_s"] else None
