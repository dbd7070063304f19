"""The sites and their public keys, as a study with secure aggregation names them.

Comes in: a workspace. Goes out: the block that the coordinator puts into ``study.yaml``, which every hospital
approves: from then on no server can put other keys in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import UsageError
from server.provision.registry import read_registry

FEWEST = 2


def roster_of(workspace: Workspace, sites: Sequence[str] = ()) -> dict[str, Any]:
    """Threshold and roster.

    Args:
        workspace: of the coordinator.
        sites: only these; all that are admitted by default.

    Raises:
        UsageError: a site is not admitted, or there are fewer than two.
    """
    rows = {row.site: row for row in read_registry(workspace).admitted()}
    unknown = sorted(set(sites) - set(rows))
    if unknown:
        raise UsageError(
            f"{unknown[0]} is not admitted",
            where="--site",
            remedy="admit it first; cardionets-server sites DIR lists them",
        )
    names = sorted(sites or rows)
    if len(names) < FEWEST:
        raise UsageError(
            f"a sum needs at least {FEWEST} sites; {len(names)} would be on the roster",
            where="roster",
            remedy="admit more sites",
        )
    return {
        "threshold": max(FEWEST, len(names) // 2 + 1, -(-2 * len(names) // 3)),
        "roster": {name: rows[name].public_key for name in names},
    }
