"""The roster of a study with secure aggregation, of hospitals that lie on this machine.

In deployment the coordinator copies the public keys of the admitted sites into the study. A simulated
hospital has no kit; it makes its key in its own folder, as any site does that was never admitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.trust.keys import public_openssh
from client.heads import journal_key


def with_roster(study: Study, sites: Iterable[Path]) -> Study:
    """The study with the keys of its sites, where it asks for secure aggregation and names none.

    Args:
        study: the study.
        sites: paths of the sites' documents; those that only measure are left out.
    """
    secure = study.secure_aggregation
    if secure is None or secure.roster:
        return study
    roster = {}
    for path in sorted(sites):
        config = read_site(path)
        if config.policy.role == "member":
            key = journal_key(path.resolve().parent, config.folders.state)
            roster[config.site] = public_openssh(key.public_key())
    content = study.model_dump(mode="json")
    content["secure_aggregation"]["roster"] = roster
    return Study.model_validate(content)
