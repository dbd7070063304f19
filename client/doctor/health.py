"""Stations four to six: the coordinator's health page, its clock, and its versions.

Comes in: the connection's document. Goes out: findings. The page is public; nothing of the site is sent.
"""

from __future__ import annotations

import email.utils
import http.client
import importlib.metadata
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.config.connection import ConnectionConfig
from cardionets_core.errors import MachineUnfitError, UnreachableError, VersionMismatchError
from cardionets_core.plain_json import parse_json
from client.doctor.findings import Findings, Notice
from client.doctor.tls import context_for

MAXIMUM_ANSWER_BYTES = 65_536
DATE_DOUBT_S = 1.5
"""The header has whole seconds, and servers make it once a second."""
WARN_BEHIND_S = 60.0
REFUSED_BEHIND_S = 240.0
"""Flower refuses a signature that is older than 305 s; the rest is for slow calls and further drift."""
REFUSED_AHEAD_S = 110.0
"""The coordinator's link bears a clock that is ahead by 120 s; the rest is for further drift."""
_SET_THE_CLOCK = "set the clock, and let the system keep it by NTP (timedatectl set-ntp true)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered.

    Attributes:
        status: of HTTP.
        body: at most ``MAXIMUM_ANSWER_BYTES`` of it.
        date: the header of that name; empty where there is none.
        asked_s: this machine's clock in the middle of the call, seconds since 1970.
        took_s: from the question to the answer.
    """

    status: int
    body: bytes
    date: str
    asked_s: float
    took_s: float

    def json(self) -> dict[str, object]:
        """The body, where it is a JSON object; else empty."""
        try:
            content = parse_json(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


def call(
    config: ConnectionConfig,
    authority_file: Path,
    *,
    path: str,
    patience_s: float,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One call to the server, straight, past any proxy.

    Raises:
        OSError, http.client.HTTPException: there was no answer.
    """
    context: ssl.SSLContext = context_for(authority_file)
    connection = http.client.HTTPSConnection(config.host, config.port, timeout=patience_s, context=context)
    try:
        connection.connect()
        begun, begun_s = time.monotonic(), time.time()
        connection.request("GET" if body is None else "POST", path, body=body, headers=headers or {})
        response = connection.getresponse()
        took_s = time.monotonic() - begun
        return Answer(
            status=response.status,
            body=response.read(MAXIMUM_ANSWER_BYTES),
            date=response.headers.get("Date", ""),
            asked_s=begun_s + took_s / 2,
            took_s=took_s,
        )
    finally:
        connection.close()


def check_health(config: ConnectionConfig, authority_file: Path, *, patience_s: float) -> Findings:
    """Ask the health page, and judge clock and versions by its answer."""
    findings = Findings()
    try:
        answer = call(config, authority_file, path="/health", patience_s=patience_s)
    except (OSError, http.client.HTTPException) as error:
        told = "no answer" if isinstance(error, TimeoutError) else str(error)
        findings.problems.append(_unhealthy(config, told))
        return findings
    content = answer.json()
    if answer.status != 200 or content.get("status") != "ok":
        findings.problems.append(
            _unhealthy(config, f"HTTP {answer.status}, and not the answer of CardioNets")
        )
        return findings
    for more in (judge_clock(answer), judge_versions(config, content)):
        findings.facts |= more.facts
        findings.problems += more.problems
        findings.notices += more.notices
    return findings


def judge_clock(answer: Answer) -> Findings:
    """Compare this machine's clock with the server's.

    Header and call leave a doubt of seconds: only what lies beyond it counts.
    """
    try:
        there_s = email.utils.parsedate_to_datetime(answer.date).timestamp() + 0.5
    except (TypeError, ValueError):
        return Findings(facts={"clock_ahead_s": None})
    ahead_s = answer.asked_s - there_s
    doubt_s = DATE_DOUBT_S + answer.took_s / 2
    findings = Findings(facts={"clock_ahead_s": round(ahead_s, 1)})
    told = (
        f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    )
    if ahead_s - doubt_s > REFUSED_AHEAD_S or -ahead_s - doubt_s > REFUSED_BEHIND_S:
        findings.problems.append(
            MachineUnfitError(
                f"{told}: the server refuses signed calls that are {REFUSED_AHEAD_S:.0f} s early or about "
                "5 minutes late",
                where="clock",
                remedy=f"{_SET_THE_CLOCK}; if this clock is right, tell the coordinator",
            )
        )
    elif -ahead_s - doubt_s > WARN_BEHIND_S:
        findings.notices.append(Notice(what=told, remedy=_SET_THE_CLOCK))
    return findings


def judge_versions(config: ConnectionConfig, content: dict[str, object]) -> Findings:
    """Compare the server's versions with those installed here, and with those of the kit."""
    kit = {"cardionets": config.cardionets_version, "flwr": config.flwr_version}
    here = {name: _installed(name) for name in kit}
    there = {name: str(content.get(name, "unknown")) for name in kit}
    findings = Findings(facts={"versions": {"here": here, "server": there, "kit": kit}})
    differing = [name for name in kit if here[name] != there[name]]
    if differing:
        told = "; ".join(f"{name} {here[name]} here, {there[name]} at the server" for name in differing)
        wanted = " ".join(_to_install(name, there[name]) for name in differing)
        findings.problems.append(
            VersionMismatchError(
                f"both sides must run the same versions: {told}",
                where="versions",
                remedy=f"install those of the server into the program's environment: pip install {wanted}"
                " (the wheel comes from the coordinator)",
            )
        )
    elif kit != there:
        findings.notices.append(
            Notice(
                what="the kit was made for other versions than those that both sides run now",
                remedy="nothing today; ask the coordinator for a new kit (cardionets-server kit DIR)",
            )
        )
    return findings


def _to_install(name: str, version: str) -> str:
    """For pip: CardioNets itself by the coordinator's file, since a public index may have that name, too."""
    return f"wheels/cardionets-{version}-py3-none-any.whl" if name == "cardionets" else f'"{name}=={version}"'


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _unhealthy(config: ConnectionConfig, told: str) -> UnreachableError:
    return UnreachableError(
        f"the server does not answer for its health: {told}",
        where=f"https://{config.server}/health",
        remedy="ask the coordinator whether the service runs (cardionets-server status); look for a proxy",
    )
