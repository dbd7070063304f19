"""How this site stands: its service, whether it reaches the coordinator, what it did last.

Comes in: a site's folder. Goes out: facts from the service's own words, its logs and the journal. It asks
nobody over the network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import read_site
from cardionets_core.durable import little_room
from cardionets_core.errors import CardioNetsError
from cardionets_core.logs.reading import Line, last_lines
from cardionets_core.plain_json import parse_json
from cardionets_core.service.logs import tail
from cardionets_core.service.state import running_service
from client.approvals.store import CODE, STUDY, ApprovalStore
from client.journal import JOURNAL
from client.log import LOG
from client.page.chain import Chain, broken_steps
from client.page.refusals import refusals_of

SCHEMA_VERSION = 2
"""2: ``last_refusal`` is an object, and the numbers of the page stand beside it."""
# What Flower's SuperNode writes, and what it means; the last one in the log counts.
TELLING = (
    ("SuperNode ID:", "connected"),
    ("Receiving:", "working"),
    ("Sent successfully", "connected"),
    ("Failed to initialize the connection", "not connected"),
    ("Connection attempt failed", "not connected"),
    ("Connection successful", "connected"),
    ("not-admitted", "not admitted"),
    ("certificate-invalid", "certificate refused"),
    ("signature-refused", "signature refused: is the clock right?"),
    ("could not be verified", "waits for approval of code"),
    ("could not verify the FAB", "waits for approval of code"),
)
NOT_YET = "not connected yet"
FIRST_START = "supernode starts (restarts: 0)"
"""The line with which a service begins the log; what stands before it is of an earlier one."""


def standing(
    folder: SiteFolder, *, chain: Chain | None = None, lines: Sequence[Line] | None = None
) -> dict[str, Any]:
    """How the site stands.

    Args:
        folder: of the site.
        chain: of its journal, where it was looked at before.
        lines: the end of its log, where it was read before.

    Returns:
        JSON-ready: service, link (what the SuperNode's log says last), last reply that left, last refusal,
        what orders will be refused for (``lacks``), and whether the journal is whole; what a broken site.yaml
        keeps from being known is None.
    """
    from client.missing import missing, withdrawn_s  # it needs this module

    config = folder.config()
    service = running_service(folder.service)
    found = last_lines(folder.root / LOG) if lines is None else lines
    refusals = refusals_of(found, root=folder.root, approved=approved_now(folder))
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "site": config.site,
        "server": config.server,
        "service": "running" if service else "not running",
        "processes": (service or {}).get("processes", {}),
        "supervisor": (service or {}).get("supervisor", {}),
        "link": link_of(folder) if service else "not connected",
        "last_reply": None,
        "last_refusal": refusals[-1] if refusals else None,
        "refusals": refusals[::-1],
        "disk": little_room(folder.root),
        "lacks": None,
        "journal": None,
    }
    try:
        journal = read_site(folder.site_yaml).folders.state / JOURNAL
        content["last_reply"] = _last_line(journal)
        content["journal"] = (chain or Chain(path=journal)).look() | {"path": str(journal)}
        since = withdrawn_s(folder)
        content["lacks"] = [
            {"lacks": name, "told": line, "withdrawn_s": since.get(name)} for name, line in missing(folder)
        ]
    except CardioNetsError as error:
        content["site_yaml"] = error.what
    return content


def approved_now(folder: SiteFolder) -> dict[tuple[str, str], float]:
    """Kind and digest of all that is approved at this moment, and since when."""
    found = ApprovalStore(folder.approvals).standing()
    return {(said.kind, said.digest): said.time_s for said in (*found.approved(CODE), *found.approved(STUDY))}


def standing_lines(content: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"site {content['site']} · coordinator {content['server']} · service {content['service']}"]
    for name, entry in content["processes"].items():
        again = f", again in {entry['again_in_s']:.0f} s" if "again_in_s" in entry else ""
        lines.append(f"  {name}: {entry['state']}, {entry['restarts']} restarts{again} · log {entry['log']}")
    lines.append(f"  link: {content['link']}")
    reply = content["last_reply"]
    if reply:
        ago = time.time() - reply["time_s"]
        lines.append(
            f"  last left: {reply.get('kind', '')} of phase {reply.get('phase', 0) + 1},"
            f" round {reply.get('round', 0)}, {_size(reply)}, {ago:.0f} s ago"
        )
    if content["last_refusal"]:
        lines += _refusal_lines(content["last_refusal"])
    if content["disk"]:
        lines.append(f"! {content['disk']}: free space; until then orders end with storage-failed")
    lines += _journal_lines(content["journal"])
    lines += [f"! {each['told']}" for each in content["lacks"] or []]
    if "site_yaml" in content:
        lines.append(f"! site.yaml cannot be used: {content['site_yaml']}")
    return lines


def _size(reply: dict[str, Any]) -> str:
    """All bytes of what left, as the page says them."""
    from cardionets_core.pages.page import byte_words

    return byte_words(sum(reply[name] for name in ("bytes", "text_bytes") if type(reply.get(name)) is int))


def _journal_lines(journal: dict[str, Any] | None) -> list[str]:
    state = journal["state"] if journal else "absent"
    if journal is None or state in ("absent", "whole"):
        return []
    if state == "checking":
        return [f"  journal: long; whole as far as line {journal['lines']:,}, the rest was not checked here"]
    if state != "broken":
        return [f"! journal: {'its last line is torn' if state == 'torn' else 'cannot be read'}"]
    steps = [f"    to do: {step}" for step in broken_steps(Path(journal["path"]))]
    return [
        f"! journal: broken from line {journal['fault_line']:,} on: what it tells cannot be trusted",
        *steps,
    ]


def _refusal_lines(refusal: dict[str, Any]) -> list[str]:
    what = refusal.get("what") or refusal.get("error", "")
    often = f"{refusal['count']} times, last " if refusal["count"] > 1 else ""
    lines = [f"  last refusal: {often}{_moment(refusal['time_s'])} · {refusal.get('code', '')} · {what}"]
    if refusal["approved_s"] is not None:
        lines.append(f"    approved since: {_moment(refusal['approved_s'])}; nothing is to do here")
        if not refusal["left_since"]:
            lines.append("    if the study has paused, its coordinator resumes it: tell them")
    shown = [each for each in _REFUSAL if each[1] != "remedy" or refusal["approved_s"] is None]
    lines += [f"    {name}: {refusal[key]}" for name, key in shown if key in refusal]
    if refusal["left_since"]:
        lines.append(f"    replies that left since: {refusal['left_since']}")
    return [line if line.isprintable() else ascii(line)[1:-1] for line in lines]


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).astimezone().isoformat(sep=" ", timespec="seconds")


_REFUSAL = (("where", "where"), ("to do", "remedy"))


def link_of(folder: SiteFolder) -> str:
    """What the SuperNode's log says last of the link, since the service was started."""
    for line in reversed(tail(folder.logs / "supernode.log", 200)):
        if line.startswith("--- ") and line.endswith(FIRST_START):
            break
        for mark, meaning in TELLING:
            if mark in line:
                return meaning
    return NOT_YET


def _last_line(journal: Path) -> dict[str, Any] | None:
    for line in reversed(tail(journal, 200)):
        try:
            content = parse_json(line.partition(" ")[2], finite=False)
        except ValueError:
            continue
        if isinstance(content, dict) and content.get("event") == "reply-left":
            return content
    return None
