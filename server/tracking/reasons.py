"""Why a store did not take something, in words for the coordinator.

Comes in: whatever a library raised. Goes out: one line without secrets, the plain cause where it is known.
"""

from __future__ import annotations

import re

LONGEST = 300
CAUSES = (
    ("Connection refused", "nothing listens there: connection refused"),
    ("Name or service not known", "there is no host of that name"),
    ("Temporary failure in name resolution", "the host's name cannot be resolved"),
    ("No route to host", "there is no way to the host"),
    ("Network is unreachable", "there is no network to the host"),
    ("Connection aborted", "it closed the connection"),
    ("Connection reset", "it closed the connection"),
    ("timed out", "it does not answer in time"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted: MLFLOW_TRACKING_SERVER_CERT_PATH"),
    ("error code 401", "it wants a login: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ("error code 403", "it refuses this user, or requests from this host (403)"),
    ("error code 404", "it is no MLflow server, or too old (404)"),
    ("too many 5", "it fails (HTTP 5xx)"),
    ("database is locked", "another program holds the SQLite file"),
    ("unable to open database file", "the SQLite file cannot be opened"),
    ("No space left", "its disk is full"),
)


def reason_of(error: BaseException) -> str:
    """Why a call failed, in one line."""
    whole = str(error)
    for sign, words in CAUSES:
        if sign in whole:
            return words
    text = next((line.strip() for line in whole.splitlines() if line.strip()), "")
    # A library's text may repeat an address with what the environment added to it.
    text = re.sub(r"//[^/\s@]+@", "//", text)
    return f"{type(error).__name__}: {text}"[:LONGEST]
