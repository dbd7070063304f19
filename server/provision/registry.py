"""The registry of sites, ``trust/sites.json``: whose key is admitted, until when, and whose is revoked.

Comes in: a workspace. Goes out: checked rows, and changed rows in one step. A row is never removed: a key
that was revoked once stays known as revoked, also when its site comes back with another key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cardionets_core.audit import journal
from cardionets_core.config.read import parse_document
from cardionets_core.config.sites import SiteRow
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CertificateInvalidError, ConfigError
from cardionets_core.plain_json import read_json
from cardionets_core.trust.keys import fingerprint, public_openssh, read_public
from cardionets_core.trust.secret_files import write_file
from server.provision.authority import JOURNAL

FILE = "sites.json"
MAXIMUM_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class Registry:
    """All rows, in the order of admission.

    Attributes:
        rows: at most one of a name is admitted.
    """

    rows: tuple[SiteRow, ...]

    def admitted(self, now: datetime | None = None) -> tuple[SiteRow, ...]:
        """Sites that may take part: neither revoked nor with an expired certificate."""
        moment = now or datetime.now(UTC)
        return tuple(row for row in self.rows if row.status == "admitted" and moment < row.ends)

    def site_of_key(self, key: str | bytes) -> SiteRow | None:
        """The row of a public key, whatever its status; None for a key that was never admitted.

        Args:
            key: in OpenSSH, PEM or DER form; a comment does not matter.
        """
        try:
            wanted = fingerprint(read_public(key.encode() if isinstance(key, str) else key, where="key"))
        except CertificateInvalidError:
            return None
        return self.of_fingerprint(wanted)

    def of_fingerprint(self, digest: str) -> SiteRow | None:
        """The row of a key's fingerprint, whatever its status."""
        return next((row for row in self.rows if row.fingerprint == digest), None)

    def named(self, site: str) -> SiteRow | None:
        """The newest row of a name: the admitted one, or the one that was revoked last."""
        return next((row for row in reversed(self.rows) if row.site == site), None)

    def newest(self) -> tuple[SiteRow, ...]:
        """One row a name, in the order of names."""
        return tuple(row for _, row in sorted({row.site: row for row in self.rows}.items()))


def read_registry(workspace: Workspace) -> Registry:
    """The registry of a workspace; empty where no site was admitted yet.

    Raises:
        ConfigError: the file is torn, or rows contradict each other; nobody is admitted by a guess.
    """
    path = workspace.trust / FILE
    if not path.exists():
        return Registry(())
    content = _json(path)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise _unreadable(path, "it is not a list of sites")
    rows = tuple(
        parse_document(SiteRow, row, where=f"{path}: row {number}")
        for number, row in enumerate(content, start=1)
    )
    for number, row in enumerate(rows, start=1):
        key = read_public(row.public_key.encode(), where=f"{path}: row {number}")
        if fingerprint(key) != row.fingerprint or public_openssh(key) != row.public_key:
            raise _unreadable(path, f"the fingerprint of row {number} is not that of its key")
    admitted = [row.site for row in rows if row.status == "admitted"]
    if len({row.fingerprint for row in rows}) < len(rows) or len(set(admitted)) < len(admitted):
        raise _unreadable(path, "a key stands twice, or a name is admitted twice")
    return Registry(rows)


def change_row(workspace: Workspace, row: SiteRow, *, event: str) -> None:
    """Add a row, or put it in the place of that of the same key; the journal's line comes first.

    The caller holds ``changing``.
    """
    registry = read_registry(workspace)
    known = registry.of_fingerprint(row.fingerprint)
    if known is None:
        rows = (*registry.rows, row)
    else:
        rows = tuple(row if other is known else other for other in registry.rows)
    facts = {
        "site": row.site,
        "fingerprint": row.fingerprint,
        "serial": row.serial,
        "not_after": row.not_after,
        "status": row.status,
        "reason": row.reason,
    }
    journal.append(workspace.trust / JOURNAL, event, facts)
    text = json.dumps([each.model_dump(mode="json") for each in rows], indent=1, sort_keys=True)
    write_file(workspace.trust / FILE, text.encode() + b"\n", secret=True)


def _json(path: Path) -> object:
    try:
        return read_json(path, most_bytes=MAXIMUM_BYTES)
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the registry of sites cannot be used: {why}",
        where=str(path),
        remedy="restore trust/sites.json from its backup; trust/journal.jsonl tells every change of it",
    )
