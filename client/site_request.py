"""A site makes its own key and asks the coordinator for a certificate: no private key ever travels.

Comes in: a name and a folder. Goes out: ``trust/site.key`` (secret), ``NAME.request`` to send, and the
fingerprint to read out. A key that is there is used again, never replaced.
"""

from __future__ import annotations

import re
from typing import Any

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.workspace import SITE_NAME
from cardionets_core.errors import StorageFailedError, UsageError
from cardionets_core.trust.certificates import make_request, read_request
from cardionets_core.trust.keys import PrivateKey, fingerprint, make_key, private_openssh, read_private
from cardionets_core.trust.secret_files import exposed, make_secret_folder, write_file

KEY = "site.key"
CERTIFICATE = "site.crt"
AUTHORITY = "ca.crt"


def ask_for_certificate(folder: SiteFolder, site: str) -> dict[str, Any]:
    """Make key and request, or find those that are there.

    Returns:
        JSON-ready: ``site``, ``request``, ``key``, ``fingerprint``, ``made`` (key, request, or nothing).

    Raises:
        UsageError: the name is wrong, or the folder holds a request under another name.
        PrivacyError: the key lies open to other accounts.
    """
    if not re.fullmatch(SITE_NAME, site):
        raise UsageError(
            f"{site!r} is no name of a site",
            where="--site",
            remedy="use 1 to 63 lower-case letters, digits and hyphens, no hyphen first",
        )
    others = [path.stem for path in folder.root.glob("*.request") if path.stem != site]
    if others:
        raise UsageError(
            f"the folder asked for a certificate as {others[0]} before",
            where=str(folder.root),
            remedy="give each site its own folder",
        )
    _make_folders(folder)
    made = []
    key_file = folder.trust / KEY
    if not key_file.exists():
        write_file(key_file, private_openssh(make_key()), secret=True, replace=False)
        made.append("key")
    key = site_key(folder)
    request_file = folder.root / f"{site}.request"
    if not request_file.exists():
        write_file(request_file, make_request(key, site=site), secret=False, replace=False)
        made.append("request")
    _, asked = read_request(request_file.read_bytes(), where=str(request_file))
    if fingerprint(asked) != fingerprint(key.public_key()):
        raise UsageError(
            "the request in the folder is about another key",
            where=str(request_file),
            remedy="move the request away and run the command again",
        )
    return {
        "site": site,
        "request": str(request_file),
        "key": str(key_file),
        "fingerprint": fingerprint(asked),
        "made": made,
    }


def site_key(folder: SiteFolder) -> PrivateKey:
    """The site's private key.

    Raises:
        PrivacyError: it lies open to other accounts.
        CertificateInvalidError: it cannot be read.
        UsageError: there is none.
    """
    path = folder.trust / KEY
    problem = exposed(path)
    if problem is not None:
        raise problem
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the site's key cannot be read: {error.strerror}",
            where=str(path),
            remedy="make one with: cardionets-client request --site NAME --out DIR; or restore its backup",
        ) from error
    return read_private(content, where=str(path))


def _make_folders(folder: SiteFolder) -> None:
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailedError(
            f"the folder cannot be made: {error.strerror}",
            where=str(folder.root),
            remedy="choose a folder that this account may write",
        ) from error
    make_secret_folder(folder.trust)
