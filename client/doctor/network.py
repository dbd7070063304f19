"""The first two stations: the server's name, and its port. And what could catch the call on its way.

Comes in: the connection's document. Goes out: findings. Sends no byte of its own to the server.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

from cardionets_core.config.connection import ConnectionConfig
from cardionets_core.errors import UnreachableError
from client.doctor.findings import Findings, Notice

PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def check_proxies(config: ConnectionConfig, environment: Mapping[str, str]) -> Findings:
    """Whether a proxy of the environment would catch the address.

    Flower's SuperNode speaks through ``httpx``, which follows these variables.
    """
    found = {name: environment[name] for name in PROXY_VARIABLES if environment.get(name)}
    findings = Findings(facts={"proxy_variables": sorted(found)})
    if not found or _bypassed(config, environment):
        return findings
    findings.notices.append(
        Notice(
            what=f"a proxy is set ({', '.join(sorted(found))}), and it catches calls to {config.server}",
            remedy=f"if the proxy does not pass the call on: add {config.host} to NO_PROXY, for the account "
            "and the service that run cardionets-client",
        )
    )
    return findings


def _bypassed(config: ConnectionConfig, environment: Mapping[str, str]) -> bool:
    value = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = {name.strip().lower().lstrip(".") for name in value.split(",")} - {""}
    host = config.host.lower()
    return any(name in ("*", host, config.server.lower()) or host.endswith(f".{name}") for name in names)


def reach(config: ConnectionConfig, *, patience_s: float) -> Findings:
    """Look the name up and open its port.

    Args:
        config: whose server.
        patience_s: for all addresses of the name together.
    """
    findings = Findings()
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
    except OSError as error:
        findings.problems.append(
            UnreachableError(
                f"the name {config.host} cannot be looked up: {error.strerror or error}",
                where="connection.yaml: server",
                remedy=f"ask for a DNS entry of {config.host}, or add it to /etc/hosts; compare the name "
                "with the coordinator's",
            )
        )
        return findings
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    findings.facts["addresses"] = addresses
    begun = time.monotonic()
    why = ""
    for address in addresses:
        left = patience_s - (time.monotonic() - begun)
        try:
            with socket.create_connection((address, config.port), timeout=max(left, 0.1)):
                findings.facts["reached"] = address
                findings.facts["connect_ms"] = round(1e3 * (time.monotonic() - begun), 1)
                return findings
        except OSError as error:
            why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))
    findings.problems.append(
        UnreachableError(
            f"port {config.port} of {config.host} ({', '.join(addresses)}) cannot be reached: {why}",
            where="connection.yaml: server",
            remedy=f"allow outgoing TCP to {config.host} port {config.port}, and nothing inbound, in the "
            "firewall; ask the coordinator whether the service runs",
        )
    )
    return findings
