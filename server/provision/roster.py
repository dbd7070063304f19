"""The sites and their public keys, as a study with secure aggregation names them.

Comes in: a workspace. Goes out: the block that the coordinator puts into ``study.yaml``, which every hospital
approves: from then on no server can put other keys in their place. Or a study whose roster is held against
the sites that are admitted now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import ConfigError, UsageError
from cardionets_core.trust.keys import public_der, read_public
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


def known_sites(workspace: Workspace) -> list[str]:
    """The sites that are admitted."""
    return [row.site for row in read_registry(workspace).admitted()]


def check_roster(workspace: Workspace, study: Study) -> None:
    """Refuse a roster that its sites could not keep to: they sign with the keys that they were admitted with.

    Args:
        workspace: of the coordinator.
        study: any; one without a roster passes.

    Raises:
        ConfigError: names the site that is not admitted, or that has another key.
        CertificateInvalidError: a key of the roster is none.
    """
    if study.secure_aggregation is None:
        return
    admitted = {row.site: row.public_key for row in read_registry(workspace).admitted()}
    where = "study: secure_aggregation.roster"
    for site, line in study.secure_aggregation.roster.items():
        listed = public_der(read_public(line.encode(), where=f"{where}: {site}"))
        if site not in admitted:
            fault = f"{site} is on the roster, and is not admitted"
        elif listed != public_der(read_public(admitted[site].encode(), where=f"the registry: {site}")):
            fault = f"the roster has another key of {site} than the one that it was admitted with"
        else:
            continue
        raise ConfigError(
            fault,
            where=where,
            remedy="print it anew: cardionets-server roster DIR; every hospital approves the study again",
        )
