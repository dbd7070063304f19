"""By which keys heads of journals are signed and checked at the coordinator (rows 0 and 10 of the walk).

Comes in: the run folder. Goes out: the server's own key with its certificate, and each site's registered
key, where the run folder lies in a workspace that has them; in simulation and in one process it does not, and
heads of the server's journal go unsigned. Reads ``trust/``, changes nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CardioNetsError
from cardionets_core.exchange.heads import PURPOSE, Head, signed_content
from cardionets_core.trust.certificates import certificate_pem
from cardionets_core.trust.keys import PrivateKey, PublicKey, read_private, read_public
from cardionets_core.trust.signatures import sign
from server.provision.authority import server_certificate
from server.provision.registry import FILE, Registry, read_registry

NOBODY = Registry(())


@dataclass(frozen=True, slots=True)
class OwnKey:
    """The server's key and the certificate that says whose it is."""

    key: PrivateKey
    certificate: str


class HeadTrust:
    """Keys of one consortium, or of none.

    Args:
        workspace: the coordinator's folder; None where there is none.
    """

    def __init__(self, workspace: Workspace | None = None) -> None:
        self._workspace = workspace
        self._own: OwnKey | None = None
        self._registry, self._stamp = NOBODY, -1
        self.fault = ""
        """Why heads of the server's journal go unsigned, though there is a workspace; else empty."""
        if workspace is not None:
            try:
                self._own = _own_key(workspace)
            except (CardioNetsError, OSError) as error:
                self.fault = str(error).partition("\n")[0]

    def signed(self, head: Head, *, journal: str) -> Head:
        """The head with the server's signature, or as it is where the server has no key at hand."""
        if self._own is None or not head.lines:
            return head
        signature = sign(self._own.key, signed_content(head, journal=journal), purpose=PURPOSE)
        return Head(lines=head.lines, hash=head.hash, signature=signature.hex(), holder=self._own.certificate)

    def public_key(self) -> PublicKey | None:
        """Of the server's own key, or None."""
        return None if self._own is None else self._own.key.public_key()

    def site_key(self, site: str) -> PublicKey | None:
        """The key under which a site was admitted; None where no such site is registered.

        Raises:
            ConfigError: the registry is torn.
        """
        if self._workspace is None:
            return None
        path = self._workspace.trust / FILE
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        if stamp != self._stamp:
            self._registry, self._stamp = read_registry(self._workspace), stamp
        row = self._registry.named(site)
        return None if row is None else read_public(row.public_key.encode(), where=f"{path}: {site}")


def head_trust(folder: Path) -> HeadTrust:
    """The keys for a run folder.

    Args:
        folder: ``runs/NAME`` of a workspace, or any other.
    """
    root = folder.resolve().parent.parent
    workspace = Workspace(root)
    inside = workspace.server_yaml.is_file() and folder.resolve().parent == workspace.runs
    return HeadTrust(workspace if inside else None)


def _own_key(workspace: Workspace) -> OwnKey:
    found = server_certificate(workspace)
    key = read_private(found.key_file.read_bytes(), where=str(found.key_file))
    return OwnKey(key, certificate_pem(found.certificate).decode())
