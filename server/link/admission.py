"""Who may come in, by the registry of the workspace; and when each site was last heard.

The registry is read again when its file changes, so a revoked site is out at its next call, whether or not
the SuperLink has been told.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import write_json
from cardionets_core.errors import CertificateInvalidError, NotAdmittedError
from cardionets_core.service.state import read_json
from server.link.guard import HEARTBEAT
from server.provision.registry import FILE as REGISTRY
from server.provision.registry import Registry, read_registry

HEARTBEATS = "heartbeats.json"
WRITE_EVERY_S = 1.0
GAP_S = 65.0
"""A site that is not heard for so long was away: it is heard every 30 s."""
MOST_STRETCHES = 200
"""Of one site; the oldest go."""


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
    """When each site was last heard, and in which stretches of time; kept in ``state/heartbeats.json``.

    Args:
        workspace: where.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.state / HEARTBEATS
        found = read_json(self._path) or {}
        self._sites: dict[str, dict[str, float]] = dict(found.get("sites", {}))
        self._online: dict[str, list[list[float]]] = dict(found.get("online", {}))
        self._written = 0.0
        self._lock = threading.Lock()

    def note(self, site: str, path: str, when_s: float) -> None:
        """A call of a site was accepted."""
        with self._lock:
            entry = self._sites.setdefault(site, {})
            entry["call_s"] = round(when_s, 3)
            if path == HEARTBEAT or "heartbeat_s" not in entry:
                entry["heartbeat_s"] = round(when_s, 3)
            stretches = self._online.setdefault(site, [])
            if not stretches or when_s - stretches[-1][1] > GAP_S:
                stretches.append([round(when_s, 1), round(when_s, 1)])
                del stretches[:-MOST_STRETCHES]
            stretches[-1][1] = round(when_s, 1)
            if time.monotonic() - self._written > WRITE_EVERY_S:
                self._written = time.monotonic()
                # A disk that takes nothing must not cost the site its answer.
                with contextlib.suppress(OSError):
                    content = {"schema_version": 1, "sites": self._sites, "online": self._online}
                    write_json(self._path, content, wait=False)


def last_heard(workspace: Workspace) -> dict[str, dict[str, float]]:
    """Site to the unix times of its last accepted heartbeat and call."""
    return dict((read_json(workspace.state / HEARTBEATS) or {}).get("sites", {}))


def heard_online(state: Path) -> dict[str, list[list[float]]]:
    """Site to the stretches of unix times in which it was heard, from a workspace's state; empty without."""
    found = (read_json(state / HEARTBEATS) or {}).get("online", {})
    return dict(found) if isinstance(found, dict) else {}
