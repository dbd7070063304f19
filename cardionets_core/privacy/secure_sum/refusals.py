"""Why a step of a secure sum was refused: the reasons, each with what its reader can do.

Comes in: a reason and a sentence. Goes out: the one error of the protocol. The sentence holds names of sites
and numbers of them, never a key, a share or a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cardionets_core.errors import SecureSumError

_SERVER_LIED = "report it to the consortium: the server asked for what it may not know"

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "malformed": "compare the versions of both sides",
        "session-differs": "nothing, if the message came late; else report it to the consortium",
        "threshold-too-low": "raise the threshold in the study, or let fewer sites take part in a session",
        "threshold-differs": _SERVER_LIED,
        "too-few-sites": "wait for the other sites, then start another attempt",
        "site-unknown": "compare the sites that the study lists with those that take part",
        "site-twice": "report it to the consortium: a site counts once",
        "own-entry-missing": "compare the key that the study lists for this site with the site's own",
        "key-twice": "report it to the consortium: two sites do not make the same key by chance",
        "key-weak": "report the site that is named: no honest program makes such a key",
        "signature-invalid": "compare the key that the study lists for the site that is named with its own",
        "participants-differ": "report it to the consortium: sites were shown different lists",
        "envelope-invalid": "start another attempt without the site that is named; if others see it too, "
        "suspect the server",
        "survivors-differ": _SERVER_LIED,
        "out-of-order": "start another attempt: a step cannot be made before the one it follows",
        "already-answered": "start another attempt: a step is answered once",
        "vector-differs": "compare the study and the versions of both sides",
        "share-wrong": "leave the reply of the site that is named out, and ask the others",
        "secret-wrong": "start another attempt without the site that is named",
        "state-invalid": "start another attempt: this site cannot go on with this one",
    }
)
WHERE = "secure sum"


def refusal(reason: str, what: str, *, site: str = "") -> SecureSumError:
    """The error for a reason of ``REMEDIES``; to be raised by the caller.

    Args:
        reason: a key of ``REMEDIES``.
        what: happened; goes to the own screen and journal.
        site: whose message it was, where that can be known.
    """
    return SecureSumError(what, where=WHERE, remedy=REMEDIES[reason], reason=reason, site=site)
