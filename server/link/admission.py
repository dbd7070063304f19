"""Who may come in, by the registry of the workspace; and when each site was last heard.

The registry is read again when its file changes, so a revoked site is out at its next call, whether or not
the SuperLink has been told.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime

from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import write_json
from cardionets_core.errors import CertificateInvalidError, NotAdmittedError
from cardionets_core.service.state import read_json
from server.link.guard import HEARTBEAT
from server.provision.registry import FILE as REGISTRY
from server.provision.registry import Registry, read_registry

HEARTBEATS = "heartbeats.json"
WRITE_EVERY_S = 1.0


class AdmittedSites:
    """Judges public keys.

    Args:
        workspace: whose registry counts.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._stamp: tuple[int, int] | None = None
        self._registry = Registry(())

    def __call__(self, key: bytes) -> tuple[str, str]:
        """The site of a key as Flower sends it, and the code for which it stays outside."""
        path = self._workspace.trust / REGISTRY
        state = path.stat() if path.exists() else None
        stamp = (state.st_mtime_ns, state.st_size) if state else (0, 0)
        if stamp != self._stamp:
            self._registry, self._stamp = read_registry(self._workspace), stamp
        row = self._registry.site_of_key(key)
        if row is None or row.status != "admitted":
            return "", NotAdmittedError.code
        if datetime.now(UTC) >= row.ends:
            return row.site, CertificateInvalidError.code
        return row.site, ""


class Heartbeats:
    """When each site was last heard; kept in ``state/heartbeats.json``.

    Args:
        workspace: where.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.state / HEARTBEATS
        self._sites: dict[str, dict[str, float]] = dict((read_json(self._path) or {}).get("sites", {}))
        self._written = 0.0
        self._lock = threading.Lock()

    def note(self, site: str, path: str, when_s: float) -> None:
        """A call of a site was accepted."""
        with self._lock:
            entry = self._sites.setdefault(site, {})
            entry["call_s"] = round(when_s, 3)
            if path == HEARTBEAT or "heartbeat_s" not in entry:
                entry["heartbeat_s"] = round(when_s, 3)
            if time.monotonic() - self._written > WRITE_EVERY_S:
                self._written = time.monotonic()
                # A disk that takes nothing must not cost the site its answer.
                with contextlib.suppress(OSError):
                    write_json(self._path, {"schema_version": 1, "sites": self._sites}, wait=False)


def last_heard(workspace: Workspace) -> dict[str, dict[str, float]]:
    """Site to the unix times of its last accepted heartbeat and call."""
    return dict((read_json(workspace.state / HEARTBEATS) or {}).get("sites", {}))
