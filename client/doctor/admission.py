"""The last station: does the coordinator admit this site's key?

Comes in: the connection's document and the site's key. Goes out: findings. Makes one call as Flower's
SuperNode signs it, with an empty question that no node asks: the listener judges the key, then Flower refuses
the question, and nothing is activated, pulled or changed.
"""

from __future__ import annotations

import base64
import http.client
from datetime import UTC, datetime
from pathlib import Path

from cardionets_core.config.connection import ConnectionConfig
from cardionets_core.errors import (
    CardioNetsError,
    CertificateInvalidError,
    NotAdmittedError,
    UnreachableError,
)
from cardionets_core.trust.keys import PrivateKey, fingerprint, public_pem, spoken
from cardionets_core.trust.signatures import sign_as_node
from client.doctor.findings import Findings
from client.doctor.health import Answer, call

PATH = "/v1/fleet/pull-messages"


def check_admission(
    config: ConnectionConfig, authority_file: Path, key: PrivateKey, *, patience_s: float
) -> Findings:
    """Ask whether the key is admitted."""
    findings = Findings()
    try:
        answer = call(
            config,
            authority_file,
            path=PATH,
            patience_s=patience_s,
            body=b"",
            headers=signed_headers(key) | {"Content-Type": "application/protobuf"},
        )
    except (OSError, http.client.HTTPException) as error:
        findings.problems.append(_no_answer(config, str(error)))
        return findings
    problem = judge(config, key, answer)
    findings.facts["admitted"] = problem is None
    if problem is not None:
        findings.problems.append(problem)
    return findings


def signed_headers(key: PrivateKey, *, now: datetime | None = None) -> dict[str, str]:
    """The headers with which a SuperNode of Flower 1.41 proves its key: key, time, and the time signed."""
    moment = (now or datetime.now(UTC)).isoformat()
    signature = sign_as_node(key, moment.encode("ascii"))
    return {
        "flwr-public-key": base64.b64encode(public_pem(key.public_key())).decode("ascii"),
        "flwr-timestamp": moment,
        "flwr-signature": base64.b64encode(signature).decode("ascii"),
    }


def judge(config: ConnectionConfig, key: PrivateKey, answer: Answer) -> CardioNetsError | None:
    """What the answer says of the key; None where it is admitted.

    The listener refuses a key by a code. What Flower itself answers to the empty question was let through.
    """
    code = answer.json().get("code")
    if code == NotAdmittedError.code:
        return NotAdmittedError(
            f"the coordinator does not know the key of {config.site}, or has revoked it",
            where=f"{config.server}; key {spoken(fingerprint(key.public_key()))}",
            remedy="send the request again, or ask why: cardionets-server admit, cardionets-server sites",
        )
    if code == CertificateInvalidError.code:
        return CertificateInvalidError(
            f"the coordinator refuses {config.site}: its certificate has expired",
            where=config.server,
            remedy=f"ask for a new kit (cardionets-server renew DIR --site {config.site}) and unpack it over "
            "this folder",
        )
    if code is not None or answer.status >= 500 or answer.status in (403, 404):
        return _no_answer(config, f"HTTP {answer.status}" + (f", {code}" if code else ""))
    return None


def _no_answer(config: ConnectionConfig, told: str) -> UnreachableError:
    return UnreachableError(
        f"the server does not answer calls of sites: {told}",
        where=f"https://{config.server}{PATH}",
        remedy="ask the coordinator for the log of the listener; look for a proxy on the way",
    )
