"""The sites as rows: what each is, does and did, and what is the matter with it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from server.page.codes import SITS_OUT, meaning, remedy
from server.page.facts import RunFacts
from server.rounds import LATE


def site_names(facts: RunFacts) -> list[str]:
    """Every site that anything tells of; members first, those that never train after them."""
    told = {str(row["site"]): str(row.get("role") or "") for row in facts.status.get("sites", ())}
    names = set(told) | {site for site, row in facts.admitted.items() if row.get("status") == "admitted"}
    names |= {reply.site for reply in facts.replies if reply.site}
    return sorted(names, key=lambda site: (told.get(site) == "external", site))


def site_rows(facts: RunFacts, names: list[str]) -> list[dict[str, Any]]:
    """A row a site, JSON-ready.

    Args:
        facts: of the run.
        names: of ``site_names``.
    """
    told = {str(row["site"]): row for row in facts.status.get("sites", ())}
    last: dict[str, Any] = {}
    late: Counter[str] = Counter()
    received: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for reply in facts.replies:
        if reply.code and reply.code not in SITS_OUT:
            (late if reply.code == LATE else refused)[reply.site] += 1
        last[reply.site] = reply
        received[reply.site] += reply.nbytes
    trained: Counter[str] = Counter()
    in_training: Counter[str] = Counter()  # of a run whose journal is gone
    for entry in facts.history:
        for row in entry.get("sites", ()):
            trained[row["site"]] += row.get("status") == "trained"
            in_training[row["site"]] += int(row.get("bytes") or 0)
    rows = []
    for name in names:
        said, known = told.get(name, {}), facts.admitted.get(name, {})
        code = str(said.get("code") or "")
        newest = last.get(name)
        if not code and newest is not None and newest.code:
            code = newest.code
        people = said.get("patients") or {}
        rows.append(
            {
                "site": name,
                "role": str(said.get("role") or "member"),
                "link": _link(known),
                "heard_s": facts.online[name][-1][1] if facts.online.get(name) else None,
                "trained": trained[name],
                "late": late[name],
                "refused": refused[name],
                "code": code,
                "sits_out": code in SITS_OUT,
                "meaning": meaning(code) if code else "",
                "remedy": remedy(code) if code else "",
                "reason": newest.reason if newest is not None and newest.code == code else "",
                "since_s": said.get("at_s") if code else None,
                "asked": bool(said.get("versions")),
                "patients": sum(people.values()) if people else None,
                "version": (said.get("versions") or {}).get("cardionets", ""),
                "bytes": max(received[name], in_training[name]),
            }
        )
    return rows


def _link(known: Any) -> str:
    """What the workspace says of the connection; empty where nobody listens."""
    if not known:
        return ""
    if known.get("status") != "admitted":
        return str(known.get("status"))
    return "online" if known.get("connected") else "offline"
