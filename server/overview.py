"""``cardionets-server status``: service, sites, study, and the cause of every failure, from files alone.

Comes in: a workspace. Goes out: JSON-ready facts, and lines for people. A site is healthy while its last
heartbeat that the outer listener accepted is young; registered, connected, configured and trained are told
apart. Flower's own exit codes are not trusted: what the study says of itself counts.
"""

from __future__ import annotations

import time
from typing import Any

from cardionets_core.config.study import read_study
from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import little_room
from cardionets_core.errors import (
    BudgetSpentError,
    CardioNetsError,
    CodeNotApprovedError,
    StudyNotApprovedError,
)
from cardionets_core.service.logs import tail
from cardionets_core.service.state import is_held, read_json, running_service
from server.approved_plans import last_approved
from server.link.admission import last_heard
from server.link.wanted import RUN, RUN_LOCK, Wanted, newer_result, read_wanted
from server.pause import PAUSE_REQUEST
from server.provision.registry import read_registry
from server.study_notes import AGAIN, BUDGET_SPENT, ENDED, UNDER_WAY, not_begun, study_notes

SCHEMA_VERSION = 1
STATUS = "status.json"
HEALTHY_S = 65.0
"""Flower's nodes are heard every 30 s; two missed ones and a bit."""
DAY_S = 86_400.0
NO_SITES = "sites: none admitted yet"
NO_SERVICE = "not running"
APPROVE = "its IT decides: cardionets-client approve FOLDER"
STOPPED_BY_SITE = {
    CodeNotApprovedError.code: ("the site has not approved this code", APPROVE),
    StudyNotApprovedError.code: ("the site has not approved this study", APPROVE),
    BudgetSpentError.code: BUDGET_SPENT,
}
"""Codes by which a hospital itself stops its part: what is the matter, and what can be done."""


def overview(workspace: Workspace, *, now_s: float | None = None) -> dict[str, Any]:
    """Everything that the coordinator asks for in the morning.

    Raises:
        ConfigError: ``server.yaml`` is wrong.
    """
    now = time.time() if now_s is None else now_s
    service = running_service(workspace.state)
    wanted = read_wanted(workspace)
    study = _study(wanted, served=service is not None)
    if wanted is None:
        study["next"] = _next_step(workspace, served=service is not None)
    return {
        "schema_version": SCHEMA_VERSION,
        "address": workspace.config().address,
        "warn_days": workspace.config().certificates.warn_days,
        "service": _service(service),
        "sites": _sites(workspace, study, now_s=now),
        "study": study,
        "failures": _failures(service, study, workspace) + _disk(workspace),
    }


def overview_lines(content: dict[str, Any]) -> list[str]:
    """The same for people."""
    service = content["service"]
    lines = [f"service {service['status']} at {content['address']}"]
    for name, entry in service["processes"].items():
        lines.append(f"  {name}: {entry['state']}, {entry['restarts']} restarts")
    lines += _study_lines(content["study"])
    lines.append("sites" if content["sites"] else NO_SITES)
    for site in content["sites"]:
        lines.append("  " + _site_line(site, content))
    for failure in content["failures"]:
        lines.append(f"! {failure['where']}: {failure['what']}")
        if failure.get("remedy"):
            lines.append(f"    to do: {failure['remedy']}")
    return lines


def _service(service: dict[str, Any] | None) -> dict[str, Any]:
    if service is None:
        return {"status": NO_SERVICE, "processes": {}}
    return {"status": service["status"], "processes": service["processes"]}


def _study(wanted: Wanted | None, *, served: bool) -> dict[str, Any]:
    """What the run says of itself, and what is wanted of it; without the service nothing of it runs."""
    if wanted is None:
        return {"state": "not begun"}
    told = read_json(wanted.out / STATUS) or {}
    state = _state(wanted, str(told.get("state", "")), served=served)
    return {
        **told,
        "state": state,
        "pause_requested": state not in ENDED and (wanted.out / PAUSE_REQUEST).exists(),
        "name": wanted.study,
        "study_digest": wanted.study_digest,
        "folder": str(wanted.out),
        "run_id": wanted.run_id,
        "submissions_without_progress": wanted.tries,
        "why": wanted.why,
    }


def _state(wanted: Wanted, told: str, *, served: bool) -> str:
    if wanted.wanted != RUN:
        return wanted.outcome
    if not served:
        return "stopped"
    if newer_result(wanted) is not None:
        return "ending"  # the run has written its result, and the service has not taken it up yet
    if told in UNDER_WAY and _has_died(wanted):
        return AGAIN
    return "starting" if told in ("", *ENDED) else told


def _has_died(wanted: Wanted) -> bool:
    """Whether the process that said so holds its folder no longer."""
    lock = wanted.out / RUN_LOCK
    try:
        return lock.exists() and not is_held(lock)
    except OSError:
        return False  # of another user: what it said last counts


def _next_step(workspace: Workspace, *, served: bool) -> str:
    """What is missing before a first study can run, and the command for it; one thing at a time."""
    try:
        study = read_study(workspace.study_yaml)
        approved = last_approved(workspace)
    except CardioNetsError as error:
        return f"{error.what}: cardionets-server plan DIR says more"
    admitted, minimum = len(read_registry(workspace).admitted()), study.sites.minimum
    if admitted < minimum:
        count = f"{admitted or 'none'} of the {minimum} sites that the study needs"
        return f"{count} {'is' if admitted < 2 else 'are'} admitted: cardionets-server admit DIR REQUEST"
    if approved is None or approved.digest != study.digest:
        return "study.yaml is not approved as it is: cardionets-server plan DIR --approve"
    if not served:
        return "the service does not run: cardionets-server start DIR"
    return "cardionets-server run DIR"


def _sites(workspace: Workspace, study: dict[str, Any], *, now_s: float) -> list[dict[str, Any]]:
    heard = last_heard(workspace)
    told = {row["site"]: row for row in study.get("sites", [])}
    rows = []
    for entry in read_registry(workspace).newest():
        last = heard.get(entry.site, {}).get("heartbeat_s")
        said = told.get(entry.site, {})
        connected = last is not None and now_s - last < HEALTHY_S and entry.status == "admitted"
        rows.append(
            {
                "site": entry.site,
                "status": entry.status,
                "certificate_days_left": round((entry.ends.timestamp() - now_s) / DAY_S, 1),
                "heartbeat_s_ago": None if last is None else round(max(0.0, now_s - last), 1),
                "connected": connected,
                "configured": _says_of_phase(said, study) == "serves",
                "says_of_phase": _says_of_phase(said, study),
                "trained": _place(said),
                "code": said.get("code", ""),
                "patients": said.get("patients"),
                "versions": said.get("versions"),
                "role": said.get("role", ""),
            }
        )
    return rows


def _says_of_phase(said: dict[str, Any], study: dict[str, Any]) -> str:
    """``serves``, the code for which the site sits the phase out, or empty while it was not asked."""
    return str(said.get("phases", {}).get(study.get("task"), ""))


def _place(said: dict[str, Any]) -> str:
    """The last round that a site trained, in words."""
    if not said.get("last_round"):
        return ""
    return f"round {said['last_round']} of phase {said['last_phase']}"


def _failures(
    service: dict[str, Any] | None, study: dict[str, Any], workspace: Workspace
) -> list[dict[str, Any]]:
    found = []
    for name, entry in ({} if service is None else service["processes"]).items():
        if entry["state"] == "waiting" and entry["last_exit"] is not None:
            told = tail_of(entry["log"])
            found.append({"where": name, "what": f"ended with {entry['last_exit']}: {told}",
                          "remedy": f"see {entry['log']}"})  # fmt: skip
    failure = study.get("failure")
    if failure and study["state"] in ENDED:
        found.append({"where": str(failure.get("where") or "study"), "what": failure.get("what", ""),
                      "remedy": failure.get("remedy", "")})  # fmt: skip
    elif study.get("why"):
        found.append({"where": "study", "what": study["why"],
                      "remedy": f"cardionets-server resume {workspace.root}"})  # fmt: skip
    for site in study.get("sites", []):
        if site.get("code") in STOPPED_BY_SITE and study["state"] != "completed":
            what, remedy = STOPPED_BY_SITE[site["code"]]
            found.append({"where": site["site"], "what": what, "remedy": remedy})
    return found


def _disk(workspace: Workspace) -> list[dict[str, Any]]:
    full = little_room(workspace.root)
    return [{"where": "disk", "what": full, "remedy": "free space; what paused goes on with resume"}] * bool(
        full
    )


def tail_of(log: str) -> str:
    """The last line of a log that is not one of the supervisor's own."""
    from pathlib import Path

    lines = [line for line in tail(Path(log), 20) if line.strip() and not line.startswith("--- ")]
    return lines[-1].strip() if lines else "it wrote nothing"


def site_words(site: dict[str, Any], content: dict[str, Any]) -> dict[str, str]:
    """What is said of an admitted site, by what it is about; an empty word where there is nothing to say."""
    goes_on = content["study"]["state"] not in ENDED
    if site["heartbeat_s_ago"] is None:
        link = "never heard"
    else:
        health = "connected" if site["connected"] else "NOT connected"
        if content["service"]["status"] == NO_SERVICE:
            health = "nobody listens"
        link = f"{health}, heard {site['heartbeat_s_ago']:.0f} s ago"
    if site["configured"]:
        phase = "configured"
    elif site["says_of_phase"]:
        phase = f"sits this phase out ({site['says_of_phase']})"
    else:
        phase = "not configured for this phase yet" if goes_on else ""
    days, patients = site["certificate_days_left"], site["patients"]
    return {
        "link": link,
        "phase": phase,
        "trained": f"trained {site['trained']}" if site["trained"] else "",
        "version": f"version {site['versions'].get('cardionets', '?')}" if site["versions"] else "",
        "patients": f"{sum(patients.values())} patients" if patients else "",
        "code": f"last code {site['code']}" if site["code"] else "",
        "certificate": f"certificate ends in {days:.0f} days" if days < content["warn_days"] else "",
    }


def _site_line(site: dict[str, Any], content: dict[str, Any]) -> str:
    if site["status"] != "admitted":
        return f"{site['site']}: {site['status']}"
    words = ["admitted", *site_words(site, content).values()]
    return f"{site['site']}: " + " · ".join(word for word in words if word)


def _study_lines(study: dict[str, Any]) -> list[str]:
    if study["state"] == "not begun":
        return [not_begun(study)]
    lines = [f"study {study['name']} · {study['state']}"]
    if study.get("phase"):
        text = f"  phase {study['phase']}/{study.get('phases', '?')} {study.get('task', '')}"
        lines.append(f"{text} · round {study.get('round', 0)}/{study.get('rounds', '?')}")
    lines += [f"  {line}" for line in study_notes(study)]
    lines.append(f"  {study['folder']}")
    return lines
