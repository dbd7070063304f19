"""Who belongs to the consortium, and what will soon need a hand.

Comes in: a workspace. Goes out: one entry a name, JSON-ready, and warnings with their remedies.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CertificateInvalidError
from cardionets_core.trust.validity import DAY_S, days_left, span
from server.provision.authority import authority, server_certificate
from server.provision.registry import read_registry

AUTHORITY_WARN_DAYS = 365


def list_sites(workspace: Workspace, *, now: datetime | None = None) -> dict[str, Any]:
    """Every name with its status and the days that its certificate has left.

    A certificate that has ended is told as ``expired``; the registry's own word stays ``admitted``.
    """
    moment = now or datetime.now(UTC)
    warn = workspace.config().certificates.warn_days
    warnings: list[dict[str, str]] = []
    listed = []
    for row in read_registry(workspace).newest():
        left = (row.ends - moment).total_seconds() / DAY_S
        status = "expired" if row.status == "admitted" and left <= 0 else row.status
        listed.append(
            {
                "site": row.site,
                "status": status,
                "days_left": round(left, 1),
                "not_after": row.not_after,
                "fingerprint": row.fingerprint,
                "serial": row.serial,
                "admitted_s": row.admitted_s,
                "reason": row.reason,
            }
        )
        if row.status == "admitted" and left < warn:
            warnings.append(
                _warning(
                    f"the certificate of {row.site}", left, f"cardionets-server renew DIR --site {row.site}"
                )
            )
    return {
        "sites": listed,
        "server_days_left": _server(workspace, warn, moment, warnings),
        "authority_days_left": _authority(workspace, moment, warnings),
        "warnings": warnings,
    }


def site_lines(content: dict[str, Any]) -> Iterator[str]:
    """The list for people."""
    if not content["sites"]:
        yield "no site was admitted yet"
    for each in content["sites"]:
        told = f"{each['days_left']:.0f} days left" if each["status"] != "revoked" else each["reason"]
        yield f"{each['site']:24} {each['status']:9} {told:20} key {each['fingerprint'][:16]}…"
    for name in ("server", "authority"):
        left = content[f"{name}_days_left"]
        yield f"{name:24} " + ("no certificate yet" if left is None else f"{left:.0f} days left")
    for warning in content["warnings"]:
        yield f"warning: {warning['what']}\n  to do: {warning['remedy']}"


def _server(
    workspace: Workspace, warn: int, moment: datetime, warnings: list[dict[str, str]]
) -> float | None:
    if not (workspace.trust / "server.crt").exists():
        return None
    left = days_left(server_certificate(workspace).certificate, now=moment)
    if left < warn:
        remedy = "cardionets-server renew DIR --server, then restart the service"
        warnings.append(_warning("the server's certificate", left, remedy))
    return round(left, 1)


def _authority(workspace: Workspace, moment: datetime, warnings: list[dict[str, str]]) -> float | None:
    if not (workspace.trust / "ca.crt").exists():
        return None
    try:
        left = days_left(authority(workspace).certificate, now=moment)
    except CertificateInvalidError as error:
        warnings.append({"what": error.what, "remedy": error.remedy})
        return None
    if left < AUTHORITY_WARN_DAYS:
        remedy = "plan a new consortium in a new workspace: an authority is never renewed"
        warnings.append(_warning("the authority's certificate", left, remedy))
    return round(left, 1)


def _warning(what: str, left: float, remedy: str) -> dict[str, str]:
    told = f"{what} expired {span(-left)} ago" if left <= 0 else f"{what} ends in {span(left)}"
    return {"what": told, "remedy": remedy}
