"""How this site stands: its service, whether it reaches the coordinator, what it did last.

Comes in: a site's folder. Goes out: facts from the service's own words, its logs and the journal. It asks
nobody over the network.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import read_site
from cardionets_core.durable import little_room
from cardionets_core.errors import CardioNetsError
from cardionets_core.logs.reading import Line, last_lines, moment_of
from cardionets_core.plain_json import parse_json
from cardionets_core.service.logs import tail
from cardionets_core.service.state import running_service
from client.journal import JOURNAL
from client.log import LOG

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
REFUSED = ("order-refused", "order-failed", "code-refused")
REFUSAL = ("code", "what", "where", "remedy", "error", "at", "kind", "study", "phase", "round", "attempt")
FIRST_START = "supernode starts (restarts: 0)"
"""The line with which a service begins the log; what stands before it is of an earlier one."""


def standing(folder: SiteFolder) -> dict[str, Any]:
    """How the site stands.

    Returns:
        JSON-ready: service, link (what the SuperNode's log says last), last reply that left, last refusal.
    """
    config = folder.config()
    service = running_service(folder.service)
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "site": config.site,
        "server": config.server,
        "service": "running" if service else "not running",
        "processes": (service or {}).get("processes", {}),
        "supervisor": (service or {}).get("supervisor", {}),
        "link": link_of(folder) if service else "not connected",
        "last_reply": None,
        "last_refusal": next(reversed(last_refusals(folder.root / LOG)), None),
        "disk": little_room(folder.root),
    }
    try:
        content["last_reply"] = _last_line(read_site(folder.site_yaml).folders.state / JOURNAL)
    except CardioNetsError as error:
        content["site_yaml"] = error.what
    return content


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
            f" round {reply.get('round', 0)}, {reply.get('bytes', 0) / 1e6:.2f} MB, {ago:.0f} s ago"
        )
    if content["last_refusal"]:
        lines += _refusal_lines(content["last_refusal"])
    if content["disk"]:
        lines.append(f"! {content['disk']}: free space; until then orders end with storage-failed")
    if "site_yaml" in content:
        lines.append(f"  site.yaml: {content['site_yaml']}")
    return lines


def _refusal_lines(refusal: dict[str, Any]) -> list[str]:
    when = datetime.fromtimestamp(refusal["time_s"]).astimezone().isoformat(sep=" ", timespec="seconds")
    what = refusal.get("what") or refusal.get("error", "")
    lines = [f"  last refusal: {when} · {refusal.get('code', '')} · {what}"]
    lines += [f"    {name}: {refusal[key]}" for name, key in _REFUSAL if key in refusal]
    return [line if line.isprintable() else ascii(line)[1:-1] for line in lines]


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


def last_refusals(log: Path, *, most: int = 5) -> list[dict[str, Any]]:
    """Why orders were refused here, the latest last: ``refusal_of`` of each."""
    refused = (line for line in last_lines(log) if line["event"] in REFUSED)
    return [refusal_of(line) for line in deque(refused, maxlen=most)]


def refusal_of(line: Line) -> dict[str, Any]:
    """What a line of the log says of a refusal: when, its code, the program's words, and what to do."""
    told = {name: line[name] for name in REFUSAL if name in line}
    if line["event"] == "code-refused":
        told["what"] = f"the code {line.get('bundle', '')} is not approved on this site"
        told["remedy"] = "look at it with: cardionets-client approve FOLDER"
    return {"time_s": moment_of(line).timestamp(), **told}
