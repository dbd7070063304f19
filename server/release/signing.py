"""By whose key a release is signed: the consortium's authority, or a key that is named.

Comes in: the run's workspace, or a file. Goes out: key and certificate, or nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import UsageError
from cardionets_core.trust.certificates import Certificate, consortium_of
from cardionets_core.trust.keys import PrivateKey, fingerprint, read_private, spoken
from cardionets_core.trust.secret_files import exposed
from server.provision.authority import authority


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """Who signs.

    Attributes:
        key: secret.
        certificate: of the key; None for a bare one.
    """

    key: PrivateKey
    certificate: Certificate | None

    @property
    def words(self) -> str:
        """For people; the same for the same key."""
        name = "a key without a certificate"
        if self.certificate is not None:
            name = f"the authority of the consortium {consortium_of(self.certificate)!r}"
        return f"{name}, fingerprint {spoken(fingerprint(self.key.public_key()))}"


def signing_key(
    workspace: Workspace | None, *, key: Path | None, passphrase: Path | None = None
) -> SigningKey | None:
    """The key of a file, else that of the workspace's authority, else None.

    Args:
        workspace: that the run lies in.
        key: file of an EC P-384 key in PEM or OpenSSH form.
        passphrase: file of its passphrase.

    Raises:
        CertificateInvalidError: there is no such key, or the authority is expired or torn.
        PrivacyError: the key lies open to other accounts.
        UsageError: a file cannot be read.
    """
    if key is not None:
        problem = exposed(key)
        if problem is not None:
            raise problem
        secret = None if passphrase is None else _content(passphrase).decode("utf-8", "replace").strip()
        return SigningKey(
            key=read_private(_content(key), where=str(key), passphrase=secret), certificate=None
        )
    if workspace is None:
        return None
    found = authority(workspace)
    return SigningKey(key=found.key, certificate=found.certificate)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the file cannot be read: {error.strerror}", where=str(path), remedy="name the key's file"
        ) from error
