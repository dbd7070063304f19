"""The third station: is the server that answers the one that the consortium's authority vouches for?

Comes in: the connection's document and the authority. Goes out: findings. A handshake by the rules decides;
only where it fails, a second one without rules fetches the certificate, to say what is wrong with it.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cardionets_core.config.connection import ConnectionConfig
from cardionets_core.errors import CardioNetsError, CertificateInvalidError, UnreachableError
from cardionets_core.trust.certificates import Certificate, read_certificate
from cardionets_core.trust.validity import check_server, days_left, span
from client.doctor.findings import Findings, Notice


def open_tls(
    config: ConnectionConfig,
    authority_file: Path,
    authority: Certificate,
    *,
    patience_s: float,
    warn_days: int,
) -> Findings:
    """Shake hands with the server.

    Args:
        config: whose server.
        authority_file: the one trust anchor; the system's own are not used.
        authority: its content.
        patience_s: for the handshake.
        warn_days: a notice stands this long before the server's certificate ends.
    """
    findings = Findings()
    try:
        with (
            socket.create_connection((config.host, config.port), timeout=patience_s) as plain,
            context_for(authority_file).wrap_socket(plain, server_hostname=config.host) as secure,
        ):
            sent = secure.getpeercert(binary_form=True) or b""
            findings.facts["tls"] = secure.version()
    except ssl.SSLCertVerificationError as error:
        findings.problems.append(_why(config, authority, error, patience_s))
        return findings
    except OSError as error:
        findings.problems.append(_no_tls(config, error))
        return findings
    certificate = read_certificate(ssl.DER_cert_to_PEM_cert(sent).encode(), where=config.server)
    left = days_left(certificate)
    findings.facts["server_days_left"] = round(left, 1)
    if left < warn_days:
        findings.notices.append(
            Notice(
                what=f"the server's certificate ends in {span(left)}",
                remedy="tell the coordinator: cardionets-server renew DIR --server",
            )
        )
    return findings


def context_for(authority_file: Path) -> ssl.SSLContext:
    """Rules for calls to the coordinator: this authority alone, the host's name, TLS 1.2 or newer."""
    context = ssl.create_default_context(cafile=str(authority_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _why(
    config: ConnectionConfig, authority: Certificate, error: ssl.SSLCertVerificationError, patience_s: float
) -> CardioNetsError:
    """Our words for what OpenSSL refused; its own where ours find nothing."""
    # Nothing is sent over this second connection but the handshake; the first one was refused for good.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((config.host, config.port), timeout=patience_s) as plain,
            context.wrap_socket(plain, server_hostname=config.host) as secure,
        ):
            sent = secure.getpeercert(binary_form=True) or b""
        certificate = read_certificate(ssl.DER_cert_to_PEM_cert(sent).encode(), where=config.server)
        check_server(certificate, authority, name=config.host, where=config.server)
    except CertificateInvalidError as found:
        return found
    except OSError as second:
        return _no_tls(config, second)
    return CertificateInvalidError(
        f"the server's certificate is refused: {error.verify_message}",
        where=config.server,
        remedy="something between here and the coordinator may open TLS: ask for an exception",
    )


def _no_tls(config: ConnectionConfig, error: OSError) -> UnreachableError:
    told = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))
    return UnreachableError(
        f"the port answers, but not with TLS: {told}",
        where=config.server,
        remedy="ask the coordinator whether the service runs on this port; look for a proxy on the way",
    )
