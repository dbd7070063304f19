"""Does the way to the coordinator work, from the name of the server to the site's admission?

Comes in: a folder that a startup kit was unpacked into. Goes out: facts, problems, notices, as all parts of
the check. Stations stand in order, and each needs the one before: name, port, TLS, health, clock, versions,
admission. What lies on this side (the site's certificate, its key, proxies) is looked at in any case. Calls
out only; activates nothing at the coordinator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cardionets_core.config.connection import ConnectionConfig, SiteFolder
from cardionets_core.config.workspace import Certificates
from cardionets_core.errors import CardioNetsError, CertificateInvalidError, ConfigError
from cardionets_core.trust.certificates import Certificate, key_of, read_certificate
from cardionets_core.trust.keys import PrivateKey, fingerprint
from cardionets_core.trust.validity import check_site, days_left, span
from client.doctor.admission import check_admission
from client.doctor.findings import Findings, Notice
from client.doctor.health import check_health
from client.doctor.network import check_proxies, reach
from client.doctor.tls import open_tls
from client.site_request import AUTHORITY, CERTIFICATE, site_key

PATIENCE_S = 10.0
WARN_DAYS = Certificates().warn_days


def check_connection(folder: SiteFolder, *, environment: Mapping[str, str] | None = None) -> Findings:
    """Walk the way to the coordinator as far as it goes.

    Args:
        folder: holds ``connection.yaml`` and ``trust``.
        environment: variables of the process; default the machine's.
    """
    findings = Findings()
    try:
        config = folder.config()
    except CardioNetsError as error:
        findings.problems.append(error)
        return findings
    findings.facts |= {
        "server": config.server,
        "site": config.site,
        "inbound": f"none needed: the runtime port {config.runtime_port} and the health port "
        f"{config.health_port} are on loopback",
    }
    merge(findings, check_proxies(config, os.environ if environment is None else environment))
    authority, key = _own_side(config, folder, findings)
    if authority is None:
        return findings
    merge(findings, _to_the_server(config, folder, authority, key))
    return findings


def merge(findings: Findings, more: Findings) -> None:
    """Add the findings of a station."""
    findings.facts |= more.facts
    findings.problems += more.problems
    findings.notices += more.notices


def _to_the_server(
    config: ConnectionConfig, folder: SiteFolder, authority: Certificate, key: PrivateKey | None
) -> Findings:
    findings = Findings()
    merge(findings, reach(config, patience_s=PATIENCE_S))
    if findings.problems:
        return findings
    authority_file = folder.trust / AUTHORITY
    tls = open_tls(config, authority_file, authority, patience_s=PATIENCE_S, warn_days=WARN_DAYS)
    merge(findings, tls)
    if findings.problems:
        return findings
    merge(findings, check_health(config, authority_file, patience_s=PATIENCE_S))
    if key is not None and not any(problem.code == "unreachable" for problem in findings.problems):
        merge(findings, check_admission(config, authority_file, key, patience_s=PATIENCE_S))
    return findings


def _own_side(
    config: ConnectionConfig, folder: SiteFolder, findings: Findings
) -> tuple[Certificate | None, PrivateKey | None]:
    """The authority and the site's key, where they are good; the site's certificate is judged on the way."""
    key: PrivateKey | None = None
    try:
        key = site_key(folder)
    except CardioNetsError as error:
        findings.problems.append(error)
    authority = _read(folder, AUTHORITY, findings)
    certificate = _read(folder, CERTIFICATE, findings)
    if authority is None or certificate is None:
        return authority, key
    where = str(folder.trust / CERTIFICATE)
    left = days_left(certificate)
    facts: dict[str, Any] = {"days_left": round(left, 1), "fingerprint": fingerprint(key_of(certificate))}
    findings.facts["own_certificate"] = facts
    try:
        check_site(certificate, authority, site=config.site, where=where)
    except CertificateInvalidError as error:
        findings.problems.append(error)
    if key is not None and fingerprint(key.public_key()) != facts["fingerprint"]:
        findings.problems.append(
            CertificateInvalidError(
                "the site's certificate is about another key than trust/site.key",
                where=where,
                remedy="unpack the kit that answers this key's request: cardionets-client init",
            )
        )
    if 0 < left < WARN_DAYS:
        findings.notices.append(
            Notice(
                what=f"the site's certificate ends in {span(left)}",
                remedy="ask the coordinator for a new kit (cardionets-server renew DIR --site "
                f"{config.site}) and unpack it over this folder",
            )
        )
    return authority, key


def _read(folder: SiteFolder, name: str, findings: Findings) -> Certificate | None:
    path = folder.trust / name
    try:
        return read_certificate(path.read_bytes(), where=str(path))
    except OSError as error:
        findings.problems.append(
            ConfigError(
                f"{name} cannot be read: {error.strerror}",
                where=str(path),
                remedy="unpack the kit again: cardionets-client init --kit KIT.zip DIR",
            )
        )
    except CertificateInvalidError as error:
        findings.problems.append(error)
    return None
