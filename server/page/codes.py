"""What a code means at a site, and what can be done about it (docs/exit-codes.md in a few words)."""

from __future__ import annotations

from server.rounds import CRASHED, LATE
from server.study_notes import BUDGET_SPENT

SITS_OUT = frozenset({"phase-not-permitted", "modality-missing", "too-few-patients"})
"""Nothing is wrong with a site that says so: its data or its policy do not serve this phase."""
ASK = "ask the site's IT"

MEANINGS: dict[str, tuple[str, str]] = {
    LATE: (
        "no reply within the study's deadline",
        "see whether the site is connected; a longer deadline_s",
    ),
    CRASHED: ("the app or its node died at the site", ASK),
    "internal": ("something that nobody expected", "ask the site for the text of its client.log"),
    "usage": ("asked for what cannot be done", ASK),
    "config-invalid": ("a document is wrong", "mend the keys that it names"),
    "unknown-name": ("a task, strategy or preset that does not exist there", "compare versions"),
    "machine-unfit": ("the machine lacks disk, memory, a GPU, a version or a right clock", ASK),
    "data": ("the site's data cannot serve", ASK),
    "folder-missing": (
        "a folder or file of the site is not there",
        "the site mends the path, or mounts the disk",
    ),
    "source-invalid": (
        "the site's files have another layout than expected",
        "the site compares them with the docs",
    ),
    "modality-missing": (
        "holds no record of a kind that the phase needs",
        "nothing: it sits the phase out",
    ),
    "too-few-patients": (
        "fewer patients than the site's own policy asks for",
        "nothing: it sits the phase out",
    ),
    "cache-stale": (
        "data, settings or code changed since its last prepare",
        "the site runs cardionets-client prepare",
    ),
    "cache-missing": ("its data is not prepared yet", "the site runs cardionets-client prepare"),
    "cache-foreign": ("its cache is torn or another site's", "the site prepares again"),
    "record-refused": ("one record cannot be used", "nothing: such records are counted and left out"),
    "privacy": ("something would leave that may not", ASK),
    "phase-not-permitted": (
        "its policy does not list the phase",
        "nothing, or its hospital changes the policy",
    ),
    "disclosure-refused": ("its gate stopped the reply; nothing left", "the site looks at client.log"),
    "budget-spent": BUDGET_SPENT,
    "code-not-approved": (
        "has not approved this code; none of it was run",
        "the site runs cardionets-client approve",
    ),
    "study-not-approved": ("has not approved this study", "the site runs cardionets-client approve"),
    "peer": ("the other side sent something wrong", "compare versions"),
    "order-refused": ("an order does not fit the study that it names", "compare versions and presets"),
    "format-too-new": ("the other side speaks a newer format", "upgrade the older side"),
    "frozen-module-missing": ("did not hold a module that the phase reads", "nothing: it is sent again"),
    "reply-refused": ("names, shapes, values or counts of its reply were wrong", ASK),
    "quorum-not-met": ("fewer sites served than the study asks for", "mend the sites, then resume"),
    "non-finite-loss": ("training diverged there; nothing left the site", "a lower learning rate"),
    "service-down": ("a service is not running, or keeps dying", "start it; look at its log"),
    "unreachable": (
        "is not connected, or could not be reached",
        "address, firewall, proxy: cardionets-client check",
    ),
    "certificate-invalid": (
        "a certificate has ended, or is of another authority",
        "compare clocks; renew it",
    ),
    "not-admitted": ("its key is not known here, or was revoked", "cardionets-server admit"),
    "version-mismatch": (
        "the two sides run different versions",
        "install the version that the message names",
    ),
    "study-paused": ("the coordinator paused the study", "cardionets-server resume DIR"),
    "secure-sum-refused": ("a step of a secure sum was refused", ASK),
    "fixed-point-range": (
        "a value was too large for the fixed point of a secure sum",
        "a lower learning rate, or a clip",
    ),
    "checkpoint": (
        "a checkpoint is torn, or of another study",
        "choose another folder, or remove the torn one",
    ),
    "storage-failed": ("a disk is full, read-only or failing", "free space, then resume"),
}


def meaning(code: str) -> str:
    """What a code means, or the code where it is none of ours."""
    return MEANINGS.get(code, (code, ""))[0]


def remedy(code: str) -> str:
    """What can be done about it."""
    return MEANINGS.get(code, ("", ASK))[1]
